"""Lock for building one file of the image cache; the kernel releases it when its process dies."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["BuildLock", "build_lock", "remove_leftover"]

_POLL_SECONDS, _REMINDER_SECONDS = 0.1, 10.0
_STATUS_BYTES = 100


class BuildLock:
    """A locked file, in which the holder writes its status for waiting processes; removed when it is released."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle = path, handle

    @classmethod
    def try_acquire(cls, path: Path) -> "BuildLock | None":
        """Return the lock, or None while another process holds it.

        Raises:
            OSError: The folder cannot be written, or the disk cannot lock files.
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
            if _is_same_file(handle, path):
                return cls(path, handle)
            os.close(handle)  # its last holder has removed it since it was opened

    def write_status(self, text: str) -> None:
        """Write what the holder does, for waiting processes; empty text where the wait is short."""
        os.pwrite(self._handle, text.ljust(_STATUS_BYTES).encode(), 0)

    def release(self) -> None:
        """Remove the file and release the lock."""
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


@contextmanager
def build_lock(path: Path, log: Callable[[str], None]) -> Iterator[BuildLock]:
    """Hold a lock; while another process holds it, wait and log the holder's status every ten seconds."""
    last_logged = -_REMINDER_SECONDS
    while (lock := BuildLock.try_acquire(path)) is None:
        if time.monotonic() - last_logged >= _REMINDER_SECONDS and (status := _read_status(path)):
            last_logged = time.monotonic()
            log(f"waiting for another process to {status}")
        time.sleep(_POLL_SECONDS)
    try:
        yield lock
    finally:
        lock.release()


def remove_leftover(path: Path) -> None:
    """Remove the file of a lock whose process was killed."""
    if path.exists():
        with suppress(OSError):  # another user's
            if lock := BuildLock.try_acquire(path):
                lock.release()


def _read_status(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _is_same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
