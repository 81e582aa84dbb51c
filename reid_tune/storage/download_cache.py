"""Copies of data and weights at s3://, brought up to date once in each process and shared by those of a machine."""

import fcntl
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.files import make_folder
from reid_tune.storage.cache_folder import cache_folder
from reid_tune.storage.s3 import Bucket, Stat, is_url

__all__ = ["copy_object", "local_file", "local_folder"]

_AT_ONCE = 32  # objects: each is small, and answers late


def local_folder(path: Path | str) -> Path:
    """A folder of this machine as it is; of one at `s3://...` the copy here, without its sub-folders.

    Raises:
        InputError: there is nothing at the address, or access is denied.
        InfrastructureError: the server does not answer, or fails.
    """
    return _folder(str(path)) if is_url(path) else Path(path)


def local_file(path: Path | str) -> Path:
    """A file of this machine as it is; of one at `s3://...` the copy here; errors as of `local_folder`."""
    return _file(str(path)) if is_url(path) else Path(path)


def copy_object(bucket: Bucket, name: str, stat: Stat, path: Path) -> bool:
    """Bring the copy of an object up to date; False where it was."""
    try:
        here = path.stat()
        if (here.st_size, here.st_mtime_ns) == (stat.size, stat.time):
            return False
    except FileNotFoundError:
        pass
    return bucket.download(name, path, stat)


@cache
def _folder(url: str) -> Path:
    bucket = Bucket(url)
    folder = _place(bucket)
    with _alone(folder):
        objects = {name: stat for name, stat in bucket.objects(deep=False).items() if not name.startswith(".")}
        if not objects:
            raise InputError(f"there is nothing at {url}; check the path of the data set.")
        make_folder(folder)
        for path in folder.iterdir():
            # What is hidden belongs to copies of folders and files below this one.
            if path.name not in objects and not path.name.startswith(".") and not path.is_dir():
                path.unlink()
        _copy(bucket, objects, folder)
    return folder


def _copy(bucket: Bucket, objects: dict[str, Stat], folder: Path) -> None:
    missing = len(objects) - sum(path.name in objects for path in folder.iterdir())
    if missing > 1000:
        print(f"copying {missing:,} files from {bucket} ...", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda item: copy_object(bucket, item[0], item[1], folder / item[0]), objects.items()):
            pass


@cache
def _file(url: str) -> Path:
    url, _, name = url.rpartition("/")
    bucket = Bucket(url)
    path = _place(bucket) / name
    with _alone(path):
        if (stat := bucket.stat(name)) is None:
            raise InputError(f"there is no file {url}/{name}.")
        copy_object(bucket, name, stat, path)
    return path


def _place(bucket: Bucket) -> Path:
    return cache_folder("s3") / "data" / bucket.root


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    make_folder(path.parent)
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
