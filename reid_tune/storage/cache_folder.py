"""Where this machine keeps copies."""

import os
from pathlib import Path

from reid_tune.errors import InputError

__all__ = ["cache_folder"]


def cache_folder(kind: str = "") -> Path:
    """A folder for copies of one kind, not made: below `REID_TUNE_CACHE_DIR`, else `reid-tune` in `XDG_CACHE_HOME` or
    `~/.cache`.

    Raises:
        InputError: the place is relative (a sweep's processes have folders of their own), or there is no home.
    """
    own, shared = os.environ.get("REID_TUNE_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(own or Path(shared or "~/.cache", "reid-tune"), kind)
    try:
        folder = folder.expanduser()
    except RuntimeError:
        raise InputError("there is no home folder for the cache: set REID_TUNE_CACHE_DIR.") from None
    if not folder.is_absolute():
        raise InputError(f"the cache's folder {folder} is relative: set REID_TUNE_CACHE_DIR to an absolute path.")
    return folder
