"""Files that a task will write, refused before the work instead of behind it."""

import os
from collections.abc import Sequence
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.files import make_folder

__all__ = ["require_writable", "check_output_file"]


def check_output_file(key: str, path: Path, endings: Sequence[str] = ()) -> Path:
    """The path, which is no folder and has one of the endings in lower case, if any are given.

    Raises:
        InputError: it is another; the message names the key of the spec.
    """
    if path.is_dir():
        raise InputError(f"{key} = {str(path)!r} is a folder: name a file.")
    if endings and path.suffix.lower() not in endings:
        wanted = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise InputError(f"{key} = {str(path)!r}: the name must end in {wanted}.")
    return path


def require_writable(path: Path) -> None:
    """Make the folder of a file that will be written.

    Raises:
        InputError: it cannot be made or written.
    """
    if not os.access(make_folder(path.parent), os.W_OK):
        raise InputError(f"the folder {path.parent} cannot be written; choose another place.")
