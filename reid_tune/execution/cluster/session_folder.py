"""Ray's folder of a local sweep: readable by its owner only, and removed even if its driver was killed."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reid_tune.errors import InfrastructureError

__all__ = ["session_folder"]

_PREFIX = "reid-tune."  # short: with the names that Ray adds, paths of sockets may have 107 bytes
_LOCK = "lock"  # held by the driver as long as it lives, so that nobody else removes its folder
_SOCKET = "r/session_2026-11-27_08-31-26_832832_{}/sockets/plasma_store"  # with the process id
_SOCKET_BYTES = 107
_FREE_BYTES = 32 << 20  # Ray's logs and registers of a session take about a megabyte
_ATTEMPTS = 100


@contextmanager
def session_folder() -> Iterator[Path]:
    """Yield a new folder that only this user can enter, for the folder of Ray's files; it is removed after the block.

    Ray gives its own folders mode 0777, also the one that `ray.init` is given. Folders that killed drivers of this user
    have left are removed first.

    Raises:
        InfrastructureError: The folder for temporary files is full, is read-only, or has too long a name for sockets.
    """
    try:
        root = Path(tempfile.gettempdir())
        remove_leftovers(root)
        _require_room(root)
        folder, lock = _create(root)
    except OSError as error:
        raise InfrastructureError(
            f"no folder for temporary files can be used ({error.strerror}): free space, or name another folder "
            "in TMPDIR."
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_leftovers(root: Path) -> list[Path]:
    """Remove the folders whose drivers have ended, and return them; those of other users and links are not touched."""
    removed = []
    for folder in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
            finally:
                os.close(lock)
    return removed


def _require_room(root: Path) -> None:
    excess = len(os.fsencode(root / f"{_PREFIX}12345678" / _SOCKET.format(os.getpid()))) - _SOCKET_BYTES
    if excess > 0:
        raise InfrastructureError(
            f"TMPDIR = {root}: the path is {excess} bytes too long for Ray's sockets: name a folder with a shorter "
            "path in TMPDIR."
        )
    free = shutil.disk_usage(root).free
    if free < _FREE_BYTES:
        raise InfrastructureError(
            f"{root} has {free >> 20} MB free, and Ray needs {_FREE_BYTES >> 20}: free space, or name another folder "
            "in TMPDIR."
        )


def _create(root: Path) -> tuple[Path, int]:
    """Create a folder with mode 0700, and return it with the descriptor that holds its lock."""
    for _ in range(_ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        # Between these lines another driver may take the folder for a leftover: it then holds the lock, or has removed
        # the folder.
        with suppress(FileNotFoundError, BlockingIOError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _is_held(lock, folder / _LOCK):
                return folder, lock
            os.close(lock)
    raise InfrastructureError(f"no folder could be created in {root}: other processes remove it; try again.")


def _is_held(lock: int, path: Path) -> bool:
    """Lock an open file, and return whether it still has its path."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # A file system without locks, on which nobody removes leftovers.
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
