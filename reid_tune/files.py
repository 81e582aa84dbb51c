"""Files that appear whole or not at all, and checks of files that will be written."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reid_tune.errors import InfrastructureError, InputError, ReidTuneError

__all__ = [
    "atomic_path",
    "check_output_file",
    "link_atomic",
    "make_folder",
    "require_writable",
    "write_atomic",
    "write_error",
]

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it when the block ends well and removed when it raises.

    Folders are made. A reader sees the old file or the new one, never a part.

    Raises:
        InputError: the folder cannot be made or written.
        InfrastructureError: the disk is full or broken.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{path.suffix}")
    try:
        # Not by tempfile, whose files are for their owner alone: the process's umask decides.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as error:
        raise write_error(f"cannot write {path}", error) from None
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _DISK:
            raise write_error(f"cannot write {path}", error) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write a small file whole, see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def link_atomic(source: Path, path: Path) -> None:
    """Give a file a second name that keeps this content when the first name is replaced; copies where links fail."""
    with atomic_path(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def make_folder(path: Path | str) -> Path:
    """Make a folder and its parents.

    Raises:
        InputError: it cannot be made, or a file is in the way.
        InfrastructureError: the disk is full or broken.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(f"cannot make the folder {path}", error) from None
    return Path(path)


def write_error(what: str, error: OSError) -> ReidTuneError:
    """What cannot be written, as the user's fault or as that of a full or broken disk."""
    if error.errno in _DISK:
        return InfrastructureError(f"{what}: {error.strerror}; make room and try again.")
    return InputError(f"{what}: {error.strerror}; choose another place.")


def check_output_file(key: str, path: Path, endings: Sequence[str] = ()) -> Path:
    """Return the path of a file that will be written, after a check of its name.

    Args:
        key: Key of the spec or option of the command line, for the message.
        path: Path of the file.
        endings: Allowed suffixes in lower case, such as `.png`; empty allows all.

    Raises:
        InputError: the path is a folder or has another suffix.
    """
    if path.is_dir():
        raise InputError(f"{key} = {str(path)!r} is a folder: name a file.")
    if endings and path.suffix.lower() not in endings:
        allowed = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise InputError(f"{key} = {str(path)!r}: the name must end in {allowed}.")
    return path


def require_writable(path: Path) -> None:
    """Make the folder of a file that will be written later, so that a task fails before its work.

    Raises:
        InputError: the folder cannot be made, or files cannot be written in it.
    """
    if not os.access(make_folder(path.parent), os.W_OK):
        raise InputError(f"the folder {path.parent} cannot be written; choose another folder.")
