"""Temporary folders that are removed even if the process that made them was killed."""

import fcntl
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from reid_tune.errors import InfrastructureError
from reid_tune.files import display_name

__all__ = [
    "RAY_FOLDER",
    "empty_folder",
    "locked_folder",
    "remove_folder",
    "remove_leftovers",
    "temporary_folder",
    "temporary_root",
]

_NAMES = "reid-tune*"
_HOST = ".reid-tune-host"  # file with the host whose processes see the lock of the folder, see `_host`
RAY_FOLDER = "r"  # below that of a local sweep; short, as paths of sockets may have 107 bytes
_UNMARKED_SECONDS = 600.0  # after which an empty folder is that of a process killed before it wrote the file
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")


def temporary_root() -> Path:
    """Return the folder for temporary files: TMPDIR, also where it is full and Python would silently use another."""
    default = tempfile.gettempdir()  # Python keeps its first answer, which must not be a folder that is removed.
    return Path(os.environ.get("TMPDIR") or default).absolute()


@contextmanager
def temporary_folder(prefix: str = "reid-tune-") -> Iterator[Path]:
    """Yield a new folder that only this user can enter; it is removed after the block.

    Folders that killed processes of this user have left are removed first, and again after the block.

    Args:
        prefix: Beginning of the folder's name, itself beginning with `reid-tune`.

    Raises:
        InfrastructureError: The folder for temporary files is full, is read-only, or has a name that cannot be used.
    """
    with ExitStack() as stack:
        try:
            root = temporary_root()
            _require_plain_name(root)
            folder = stack.enter_context(locked_folder(root, prefix, _NAMES))
        except OSError as error:
            raise InfrastructureError(
                f"no folder for temporary files can be used{_configured()} ({error.strerror}): free space, or name "
                "another folder in TMPDIR."
            ) from None
        yield folder


@contextmanager
def locked_folder(root: Path, prefix: str, names: str) -> Iterator[Path]:
    """Yield a new folder in `root`, see `temporary_folder`.

    Args:
        root: Folder that exists.
        prefix: Beginning of the new folder's name.
        names: Pattern of the names of such folders, see `remove_leftovers`.
    """
    remove_leftovers(root, names)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        remove_folder(folder)
        os.close(lock)
        with suppress(OSError):  # Processes of a killed one may have written into its folder until now.
            remove_leftovers(root, names)


def empty_folder(folder: Path) -> None:
    """Remove what is in a temporary folder, but not its file with the host: the next start removes the folder.

    Other processes that are ending may write into it until then.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _HOST:
                path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a temporary folder; if others write into it at the same time, the next start removes the rest."""
    empty_folder(folder)
    with suppress(OSError):
        mark = folder / _HOST
        host = mark.read_bytes() if mark.exists() else None
        mark.unlink(missing_ok=True)
        try:
            folder.rmdir()
        except OSError:  # Something has been written since.
            if host is not None:
                mark.write_bytes(host)


def remove_leftovers(root: Path, names: str = _NAMES) -> list[Path]:
    """Remove the folders whose processes have ended, and return them.

    Folders of other users and of other hosts, whose locks this host may not see, are not touched. Nothing is created.

    Args:
        root: Folder of the folders.
        names: Pattern of their names. Nobody else may have folders of such names: empty ones are removed, too.
    """
    removed = []
    for folder in root.glob(names):
        with suppress(OSError):
            lock = _open(folder)
            try:
                status = os.fstat(lock)
                if status.st_uid != os.geteuid():
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(status, folder.lstat()) and _is_leftover(folder, status.st_mtime):
                    remove_folder(folder)
                    removed.append(folder)
            finally:
                os.close(lock)
    return removed


def _is_leftover(folder: Path, changed: float) -> bool:
    """Whether a folder that no process of this host has locked is of this host, was never used, or was made again."""
    mark = folder / _HOST
    if mark.exists():
        return _is_of_this_host(mark.read_bytes())
    names = {path.name for path in folder.iterdir()}
    if not names:
        return time.time() - changed > _UNMARKED_SECONDS
    # Processes of Ray that end after their killed driver make its folder again, with nothing else.
    return names == {RAY_FOLDER} and any(folder.glob(f"{RAY_FOLDER}/session_*"))


def _lock(folder: Path) -> int:
    """Return a descriptor that holds a folder's lock as long as this process lives.

    The lock is that of the folder itself: a file in it may be deleted as old, and systemd-tmpfiles spares what is in a
    locked folder. The file with the host comes after the lock, so that nobody takes a new folder for a leftover.
    """
    lock = _open(folder)
    with suppress(OSError):  # On a file system without locks nobody removes leftovers.
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / _HOST).write_bytes(_host())
    return lock


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _host() -> bytes:
    """Return a line for the running kernel, which containers share as they share its locks, and one for the machine.

    The second one tells after a restart that the kernel was an earlier one of this machine. Copies of a machine's disk
    have the same id, but another name.
    """
    lines = []
    with suppress(OSError):
        lines.append(_BOOT_ID.read_bytes().strip())
    machine = b""
    with suppress(OSError):
        machine = _MACHINE_ID.read_bytes().strip()
    return b"\n".join([*lines, b" ".join([socket.gethostname().encode(), machine])]) + b"\n"


def _is_of_this_host(content: bytes) -> bool:
    return not set(content.splitlines()).isdisjoint(_host().splitlines())


def _configured() -> str:
    """Return the value of TMPDIR as a part of a sentence."""
    value = os.environ.get("TMPDIR")
    return f" in {display_name(value)}" if value else ""


def _require_plain_name(root: Path) -> None:
    """Refuse a path that is another one in the addresses `file://` and `sqlite:///` of torch and MLflow."""
    if match := re.search(r"[#?\t\r\n]", str(root)):
        raise InfrastructureError(
            f"TMPDIR = {display_name(root)}: the path has the character {match[0]!r}, which has a meaning in the "
            "addresses of files: name another folder in TMPDIR."
        )
