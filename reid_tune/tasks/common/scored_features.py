"""Count of the commands that score feature files of a test set."""

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.evaluation.npz import read_npz
from reid_tune.files import display_name
from reid_tune.journal.test_set_usage import (
    count_test_evaluations,
    evaluation_count_sentence,
    store_test_evaluation,
)

__all__ = ["IMAGES", "count_evaluation", "count_scored_features"]

_FINGERPRINT = re.compile("[0-9a-f]{32}")
IMAGES = "images"  # array or metadata of a file of `inference`: the fingerprint of its images


def count_evaluation(fingerprint: str, command: str) -> str:
    """Store that a command has scored a test set, and return how often that has happened.

    Args:
        fingerprint: Fingerprint of the test set.
        command: The command, for people who read the record.
    """
    store_test_evaluation(secrets.token_hex(8), [fingerprint], command)
    return evaluation_count_sentence(count_test_evaluations(fingerprint))


def count_scored_features(paths: Sequence[Path], command: str) -> list[str]:
    """Store that a command has scored feature files, one evaluation for each test set, and return sentences about it.

    Files that `inference` has not written do not say of which images they are: they are not counted.
    """
    fingerprints = {path: _read_fingerprint(path) for path in paths}
    test_sets = list(dict.fromkeys(filter(None, fingerprints.values())))
    sentences = [f"{command}: {count_evaluation(fingerprint, command)}" for fingerprint in test_sets]
    if unknown := [display_name(path) for path, fingerprint in fingerprints.items() if not fingerprint]:
        sentences.append(
            f"{command}: not counted as an evaluation of a test set, as {', '.join(unknown)} does not say of which "
            "images it is; files .npz and .parquet of inference do"
        )
    return sentences


def _read_fingerprint(path: Path) -> str:
    """Return the fingerprint of the images of a file that could be scored; empty if it does not have one."""
    if path.suffix.lower() == ".json":
        return ""
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        text = (parquet.read_schema(path).metadata or {}).get(IMAGES.encode(), b"").decode(errors="replace")
        return _checked(text)
    try:
        arrays = read_npz(path, lambda names: {IMAGES: IMAGES} if IMAGES in names else {})
    except InputError:
        return ""
    values = arrays[IMAGES].ravel().tolist() if IMAGES in arrays else []
    return _checked(str(values[0])) if len(values) == 1 else ""


def _checked(text: str) -> str:
    # It becomes the name of a file in the user's state folder.
    return text if _FINGERPRINT.fullmatch(text) else ""
