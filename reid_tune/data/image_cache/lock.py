"""The right to build one file of the cache; the kernel takes it back when its process dies."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BuildLock", "build_lock"]

_POLL, _REMIND = 0.1, 10.0  # seconds
_WIDTH = 100


class BuildLock:
    """A locked file, which tells those who wait what its holder does; it is gone when the lock is."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle = path, handle

    @classmethod
    def take(cls, path: Path) -> "BuildLock | None":
        """The lock, or None while another process has it.

        Raises:
            OSError: the folder cannot be written, or the disk cannot lock files.
        """
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                return None
            except OSError:
                os.close(handle)
                raise
            if _is_at(handle, path):
                return cls(path, handle)
            os.close(handle)  # its last holder has removed it since it was opened

    def tell(self, text: str) -> None:
        """Leave some words for those who wait; there is nothing to say about a short wait where they are empty."""
        os.pwrite(self._handle, text.ljust(_WIDTH).encode(), 0)

    def release(self) -> None:
        """Remove the file and give the lock back."""
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


@contextmanager
def build_lock(path: Path, say: Callable[[str], None]) -> Iterator[BuildLock]:
    """Hold a lock, after a wait where another process has it; what that one tells is said now and then."""
    said = -_REMIND
    while (lock := BuildLock.take(path)) is None:
        if time.monotonic() - said >= _REMIND and (work := _told(path)):
            said = time.monotonic()
            say(f"waiting for another process to {work}")
        time.sleep(_POLL)
    try:
        yield lock
    finally:
        lock.release()


def _told(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
