"""Copies on this machine of data, weights and sweeps at s3://."""

import fcntl
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

from reid_tune.errors import InputError
from reid_tune.files import make_folder
from reid_tune.storage.object_store import ObjectStat, is_url
from reid_tune.storage.s3 import S3Store

__all__ = [
    "cache_folder",
    "display_path",
    "ensure_local_file",
    "ensure_local_folder",
    "mirror_folder",
    "sync_object",
]

_PARALLEL_DOWNLOADS = 32  # each object is small, and a request takes long
_ANNOUNCED = 1000  # files; more are announced on stderr
_MIRRORS = ("drivers", "readers")


def cache_folder(kind: str = "") -> Path:
    """The folder for copies of one kind, which is not created: below `REID_TUNE_CACHE_DIR`, or `reid-tune` in
    `XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        InputError: the path is relative (the processes of a sweep have different current folders), or there is no home
            folder.
    """
    configured, shared = os.environ.get("REID_TUNE_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(configured or Path(shared or "~/.cache", "reid-tune"), kind)
    try:
        folder = folder.expanduser()
    except RuntimeError:
        raise InputError("there is no home folder for the cache: set REID_TUNE_CACHE_DIR.") from None
    if not folder.is_absolute():
        raise InputError(f"the cache's folder {folder} is relative: set REID_TUNE_CACHE_DIR to an absolute path.")
    return folder


def mirror_folder(user: Literal["drivers", "readers"], storage: str) -> Path:
    """The folder of this machine with the copies of a storage's sweeps that drivers or readers use."""
    return cache_folder("s3") / user / S3Store(storage).root


def display_path(folder: Path) -> str:
    """A folder as users know it: the `s3://` address of a sweep or a storage of which it is a copy, or its path."""
    try:
        root = cache_folder("s3")
    except InputError:
        return str(folder)
    for user in _MIRRORS:
        if folder.is_relative_to(root / user):
            return f"s3://{folder.relative_to(root / user)}"
    return str(folder)


def ensure_local_folder(path: Path | str) -> Path:
    """A folder of this machine unchanged; for one at `s3://...` the copy here, without sub-folders.

    A copy is brought up to date once in each process, and shared by the processes of a machine.

    Raises:
        InputError: there is nothing at the address, or access is denied.
        InfrastructureError: the server does not answer, or fails.
    """
    return _download_folder(str(path)) if is_url(path) else Path(path)


def ensure_local_file(path: Path | str) -> Path:
    """A file of this machine unchanged; for one at `s3://...` the copy here; errors as in `ensure_local_folder`."""
    return _download_file(str(path)) if is_url(path) else Path(path)


def sync_object(store: S3Store, name: str, stat: ObjectStat, path: Path) -> bool:
    """Bring the copy of an object up to date; False if it already was."""
    try:
        local = path.stat()
        if (local.st_size, local.st_mtime_ns) == (stat.size, stat.time):
            return False
    except FileNotFoundError:
        pass
    return store.download(name, path, stat)


@cache
def _download_folder(url: str) -> Path:
    store = S3Store(url)
    folder = _data_folder(store)
    with _exclusive(folder):
        listing = store.objects(recursive=False)
        objects = {name: stat for name, stat in listing.items() if not name.startswith(".")}
        if not objects:
            raise InputError(f"there is nothing at {url}; check the path of the data set.")
        make_folder(folder)
        for path in folder.iterdir():
            # Hidden files and folders belong to copies of folders and files below this one.
            if path.name not in objects and not path.name.startswith(".") and not path.is_dir():
                path.unlink()
        _download(store, objects, folder)
    return folder


def _download(store: S3Store, objects: dict[str, ObjectStat], folder: Path) -> None:
    missing = len(objects) - sum(path.name in objects for path in folder.iterdir())
    if missing > _ANNOUNCED:
        print(f"copying {missing:,} files from {store} ...", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        for _ in pool.map(lambda item: sync_object(store, item[0], item[1], folder / item[0]), objects.items()):
            pass


@cache
def _download_file(url: str) -> Path:
    address, _, name = url.rpartition("/")
    store = S3Store(address)
    path = _data_folder(store) / name
    with _exclusive(path):
        if (stat := store.stat(name)) is None:
            raise InputError(f"there is no file {url}.")
        sync_object(store, name, stat, path)
    return path


def _data_folder(store: S3Store) -> Path:
    return cache_folder("s3") / "data" / store.root


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the lock of a path; other processes wait."""
    make_folder(path.parent)
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
