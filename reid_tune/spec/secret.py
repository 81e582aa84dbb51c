"""The passphrase of checkpoints, from where it is not written down."""

import os
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.spec.experiment import Experiment

__all__ = ["KEY", "KEY_FILE", "passphrase"]

KEY, KEY_FILE = "REID_TUNE_ENCRYPTION_KEY", "REID_TUNE_ENCRYPTION_KEY_FILE"


def passphrase(experiment: Experiment | None = None) -> str | None:
    """The spec's `encryption_key`, else what the environment gives: the key, or the file that holds it.

    Raises:
        InputError: the file cannot be read, or is empty.
    """
    if experiment is not None and experiment.encryption_key:
        return experiment.encryption_key
    if key := os.environ.get(KEY):
        return key
    if not (file := os.environ.get(KEY_FILE)):
        return None
    try:
        key = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"cannot read {file}, which {KEY_FILE} names: give a text file with the key.") from None
    if not key:
        raise InputError(f"{file}, which {KEY_FILE} names, is empty: write the key into it.")
    return key
