"""Cache of data, weights and sweeps at s3:// on this machine."""

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
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import ObjectStat, S3Store

__all__ = [
    "cache_folder",
    "display_path",
    "ensure_local_file",
    "ensure_local_folder",
    "mirror_folder",
    "sync_object",
]

_PARALLEL_DOWNLOADS = 32  # each object is small, and a request takes long
_ANNOUNCED_FILES = 1000  # of more files, the download is announced on stderr
_MIRRORS = ("drivers", "readers")


def cache_folder(kind: str = "") -> Path:
    """Return the folder for copies of one kind, which is not created.

    It is below `REID_TUNE_CACHE_DIR`, or below `reid-tune` in `XDG_CACHE_HOME` or `~/.cache`.

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
    """Return the folder of this machine with the copies of a storage's sweeps that drivers or readers use."""
    return cache_folder("s3") / user / S3Store(storage).root


def display_path(folder: Path) -> str:
    """Return the `s3://` address of which a folder is a copy (a sweep or storage), or the path of any other folder."""
    try:
        root = cache_folder("s3")
    except InputError:
        return str(folder)
    for user in _MIRRORS:
        if folder.is_relative_to(root / user):
            return f"s3://{folder.relative_to(root / user)}"
    return str(folder)


def ensure_local_folder(path: Path | str) -> Path:
    """Return the path of a folder of this machine, or of the copy of one at `s3://...`, without its sub-folders.

    A copy is updated once in each process, and shared by the processes of a machine.

    Raises:
        InputError: there are no files at the address, or access is denied.
        InfrastructureError: the server does not answer, or fails.
    """
    return _download_folder(str(path)) if is_url(path) else Path(path)


def ensure_local_file(path: Path | str) -> Path:
    """Return the path of a file of this machine, or of the copy of one at `s3://...`; see `ensure_local_folder`."""
    return _download_file(str(path)) if is_url(path) else Path(path)


def sync_object(store: S3Store, name: str, stat: ObjectStat, path: Path) -> bool:
    """Update the copy of an object; False if it was up to date."""
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
    with _locked(folder):
        listing = store.objects(recursive=False)
        objects = {name: stat for name, stat in listing.items() if not name.startswith(".")}
        if not objects:
            raise InputError(f"there are no files at {url}; check the path of the data set.")
        make_folder(folder)
        for path in folder.iterdir():
            # Hidden files and folders belong to copies of folders and files below this one.
            if path.name not in objects and not path.name.startswith(".") and not path.is_dir():
                path.unlink()
        _download(store, objects, folder)
    return folder


def _download(store: S3Store, objects: dict[str, ObjectStat], folder: Path) -> None:
    missing = len(objects) - sum(path.name in objects for path in folder.iterdir())
    if missing > _ANNOUNCED_FILES:
        print(f"copying {missing:,} files from {store} ...", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        for _ in pool.map(lambda item: sync_object(store, item[0], item[1], folder / item[0]), objects.items()):
            pass


@cache
def _download_file(url: str) -> Path:
    address, _, name = url.rpartition("/")
    store = S3Store(address)
    path = _data_folder(store) / name
    with _locked(path):
        if (stat := store.stat(name)) is None:
            raise InputError(f"there is no file {url}.")
        sync_object(store, name, stat, path)
    return path


def _data_folder(store: S3Store) -> Path:
    return cache_folder("s3") / "data" / store.root


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a path during the block; other processes wait."""
    make_folder(path.parent)
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
