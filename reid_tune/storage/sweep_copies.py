"""Where copies of sweeps at s3:// are, and what is whose in them."""

import re
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.storage.cache_folder import cache_folder
from reid_tune.storage.s3 import Bucket

__all__ = ["attempt_of", "copies_for", "shown"]

_ATTEMPT = re.compile(r"(.*/attempt-\d+)/.*")


def copies_for(whom: str, storage: str) -> Path:
    """The folder of this machine with the copies of a storage's sweeps that drivers or readers use."""
    return cache_folder("s3") / whom / Bucket(storage).root


def shown(folder: Path) -> str:
    """A folder as people know it: the address of a sweep or a storage of which it is a copy, else its path."""
    try:
        root = cache_folder("s3")
    except InputError:
        return str(folder)
    for whom in ("drivers", "readers"):
        if folder.is_relative_to(root / whom):
            return f"s3://{folder.relative_to(root / whom)}"
    return str(folder)


def attempt_of(name: str) -> str:
    """The folder of the attempt to which a file of a sweep belongs; empty where to none."""
    found = _ATTEMPT.fullmatch(name)
    return found[1] if found else ""
