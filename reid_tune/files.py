"""Files that appear whole or not at all, and checks of files that will be written."""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reid_tune.errors import InfrastructureError, InputError, ReidTuneError

__all__ = [
    "atomic_path",
    "check_output_file",
    "display_name",
    "display_text",
    "find_partial_files",
    "is_disk_error",
    "link_atomic",
    "make_folder",
    "read_text",
    "require_writable",
    "write_atomic",
    "output_error",
]

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{12}(\.[^.]+)?")  # names of the temporary files of `atomic_path`
# What to do about a disk that is full, broken or gone, by the number of the error.
_DISK_ADVICE = {
    errno.ENOSPC: "free space on the disk and try again",
    errno.EDQUOT: "free space on the disk and try again",
    errno.EROFS: "make the file system writable, or choose another path",
    errno.EIO: "check the disk and try again",
    errno.ESTALE: "mount the file system again and try again",
}


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` after the block, or remove it if the block raises.

    Missing folders are created. A reader sees the old file or the new one, never a part.

    Raises:
        InputError: The folder cannot be created or written.
        InfrastructureError: The disk is full, read-only or broken.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{path.suffix}")
    try:
        # Not by tempfile, whose files only their owner can read: here the process's umask decides.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as error:
        raise output_error(f"cannot write {path}", error) from None
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if is_disk_error(error):
            raise output_error(f"cannot write {path}", error) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write a small file atomically, see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def find_partial_files(folder: Path) -> list[Path]:
    """Return the temporary files of `atomic_path` below a folder: of processes that write or that were killed."""
    return [path for path in folder.rglob(".*") if _PARTIAL.fullmatch(path.name)]


def link_atomic(source: Path, path: Path) -> None:
    """Link a file under a second name, which keeps the content when the first name is replaced; copy if links fail."""
    with atomic_path(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def display_name(path: Path | str) -> str:
    """Return a path as text that any terminal, log or page shows as one line.

    Control characters, line breaks, invisible characters and bytes that are not UTF-8 become escapes such as `\\n`.
    """
    return "".join(character if character.isprintable() else _escape(character) for character in str(path))


def display_text(text: str) -> str:
    """Return a text of several lines with the escapes of `display_name`."""
    return "\n".join(map(display_name, text.split("\n")))


def _escape(character: str) -> str:
    # A byte that is not UTF-8 is a surrogate in a path.
    if "\udc80" <= character <= "\udcff":
        return f"\\x{os.fsencode(character)[0]:02x}"
    return character.encode("unicode_escape").decode()


def make_folder(path: Path | str) -> Path:
    """Create a folder and its parents; return its path.

    Raises:
        InputError: The folder cannot be created, or a file is in the way.
        InfrastructureError: The disk is full, read-only or broken.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(f"cannot make the folder {path}", error) from None
    return Path(path)


def is_disk_error(error: BaseException) -> bool:
    """Return whether an error says that a disk is full, read-only, broken or gone, which no other input would mend."""
    return isinstance(error, OSError) and error.errno in _DISK_ADVICE


def output_error(problem: str, error: OSError) -> ReidTuneError:
    """Return the error of a file or folder that cannot be written: InfrastructureError for that of a disk.

    Args:
        problem: What failed, with the path.
    """
    if is_disk_error(error):
        return InfrastructureError(f"{problem}: {error.strerror}; {_DISK_ADVICE[error.errno or 0]}.")
    return InputError(f"{problem}: {error.strerror}; choose another path.")


def read_text(path: Path | str) -> str:
    """Return the text of a regular file in UTF-8; another file may have no end, or wait for a writer.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        UnicodeDecodeError: the file is not text.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    with open(handle, "rb") as file:
        return file.read().decode()


def check_output_file(key: str, path: Path, endings: Sequence[str] = ()) -> Path:
    """Return the path of a file that will be written, after a check of its name.

    Args:
        key: Key of the spec or option of the command line, for the message.
        path: Path of the file.
        endings: Allowed suffixes in lower case, such as `.png`; empty allows all.

    Raises:
        InputError: The path is a folder or has another suffix.
    """
    if path.is_dir():
        raise InputError(f"{key} = {str(path)!r} is a folder: name a file.")
    if endings and path.suffix.lower() not in endings:
        allowed = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise InputError(f"{key} = {str(path)!r}: the name must end in {allowed}.")
    return path


def require_writable(path: Path) -> None:
    """Create the folder of a file that will be written later, so that a task fails before its work.

    Raises:
        InputError: The folder cannot be created, or files cannot be written in it.
    """
    if not os.access(make_folder(path.parent), os.W_OK):
        raise InputError(f"the folder {path.parent} cannot be written; choose another folder.")
