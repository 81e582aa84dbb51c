"""Passphrase of encrypted checkpoints, from the environment or the spec."""

import os
from pathlib import Path

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError

__all__ = ["KEY_FILE_VARIABLE", "KEY_VARIABLE", "find_passphrase"]

KEY_VARIABLE, KEY_FILE_VARIABLE = "REID_TUNE_ENCRYPTION_KEY", "REID_TUNE_ENCRYPTION_KEY_FILE"


def find_passphrase(experiment: Experiment | None = None) -> str | None:
    """Return the key of the environment, given directly or by a file's name, otherwise the spec's `encryption_key`.

    Args:
        experiment: The spec; None uses the environment alone.

    Returns:
        The key, or None without one.

    Raises:
        InputError: The file cannot be read or is empty, or the key is not one line of printable text.
    """
    key = os.environ.get(KEY_VARIABLE) or _from_file() or (experiment.encryption_key if experiment else None) or None
    if key is not None and not key.isprintable():
        raise InputError(f"the encryption key has an unprintable character: use one line of text in {KEY_VARIABLE}.")
    return key


def _from_file() -> str | None:
    if not (file := os.environ.get(KEY_FILE_VARIABLE)):
        return None
    try:
        key = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"cannot read {file} of {KEY_FILE_VARIABLE}: name a text file with the key.") from None
    if not key:
        raise InputError(f"{file} of {KEY_FILE_VARIABLE} is empty: write the key into it.")
    return key
