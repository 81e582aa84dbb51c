"""Ray's folder of a local sweep: readable by its owner only, and removed even if its driver was killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reid_tune.errors import InfrastructureError
from reid_tune.storage.temporary_folder import RAY_FOLDER, temporary_folder

__all__ = ["session_folder"]

_PREFIX = "reid-tune."  # short: with the names that Ray adds, paths of sockets may have 107 bytes
_SOCKET = f"{RAY_FOLDER}/session_2026-11-27_08-31-26_832832_{{}}/sockets/plasma_store"  # with the process id
_SOCKET_BYTES = 107
_FREE_BYTES = 32 << 20  # Ray's logs and registers of a session take about a megabyte


@contextmanager
def session_folder() -> Iterator[Path]:
    """Yield a new folder that only this user can enter, for the folder of Ray's files; it is removed after the block.

    Ray gives its own folders mode 0777, also the one that `ray.init` is given.

    Raises:
        InfrastructureError: The folder for temporary files is full, is read-only, or has too long a name for sockets.
    """
    with temporary_folder(_PREFIX) as folder:
        _require_room(folder)
        yield folder


def _require_room(folder: Path) -> None:
    root, excess = folder.parent, len(os.fsencode(folder / _SOCKET.format(os.getpid()))) - _SOCKET_BYTES
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
