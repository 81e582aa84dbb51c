"""File systems that only a test sees: mounts in a mount namespace of its own."""

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["fill", "mount_namespace", "read_only", "tmpfs"]

_CLONE_FS, _CLONE_NEWNS = 0x00000200, 0x00020000
_LIBRARY = ctypes.CDLL(None, use_errno=True)


@contextmanager
def mount_namespace() -> Iterator[None]:
    """Give this thread, and the processes that it starts, a mount namespace during the block.

    Their mounts are seen by nobody else, and end with the last of them. The test is skipped where this is not
    permitted.
    """
    folder = os.getcwd()
    with Path("/proc/thread-self/ns/mnt").open() as before:
        if _LIBRARY.unshare(_CLONE_NEWNS):
            pytest.skip(f"no mount namespace may be created here: {os.strerror(ctypes.get_errno())}")
        try:
            _mount("--make-rprivate", "/")
            yield
        finally:
            # Threads that a library has started in the block share what setns changes: leave that to them.
            assert _LIBRARY.unshare(_CLONE_FS) == 0, os.strerror(ctypes.get_errno())
            assert _LIBRARY.setns(before.fileno(), _CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
            os.chdir(folder)


def tmpfs(folder: Path, megabytes: int = 64) -> None:
    """Mount an empty file system of a size over a folder, which keeps its mode."""
    mode = f"{folder.stat().st_mode & 0o7777:o}"
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode={mode}", "tmpfs", str(folder))


@contextmanager
def fill(folder: Path, free: int = 0) -> Iterator[None]:
    """Fill the file system of a folder during the block, except for a number of bytes."""
    status = os.statvfs(folder)
    with tempfile.TemporaryFile(dir=folder) as file:  # without a name, so that nobody finds it
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - free)
        yield


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nothing in a folder be opened for writing during the block; files that are open already are still written."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
