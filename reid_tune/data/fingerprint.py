"""Fingerprints of a set of images, and of each image."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from reid_tune.data.image_file import content_digest
from reid_tune.data.records import ImageRecord, read_image_folder
from reid_tune.errors import InputError

__all__ = ["fingerprint", "image_fingerprints"]

_READ_THREADS = 8

Signature = tuple[tuple[str, int, int], ...]


def fingerprint(*folders: Path | str) -> str:
    """Return the BLAKE2b hash of the names and bytes of the images in folders, in the given order.

    The paths of the folders do not matter. A process reads a folder again only if the name, size or modification time
    of a file has changed.

    Raises:
        InputError: A folder has no usable image, or a file cannot be read.
    """
    digest = blake2b(digest_size=16)
    for folder in folders:
        listing = read_image_folder(folder)
        paths = [record.path for record in listing.records]
        try:
            digest.update(_digest(listing.path.absolute(), _signature(paths)))
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}.") from None
    return digest.hexdigest()


def image_fingerprints(records: Sequence[ImageRecord]) -> np.ndarray:
    """Return a hash of the bytes of each image, int64 [n]; names and folders do not matter.

    Two of a million different images have the same hash with a probability of 3e-8.

    Raises:
        InputError: A file cannot be read.
    """
    paths = [record.path for record in records]
    try:
        states = [path.stat() for path in paths]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}.") from None
    sizes, times = [state.st_size for state in states], [state.st_mtime_ns for state in states]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        return np.array(list(pool.map(_image_fingerprint, paths, sizes, times)), np.int64)


@cache
def _image_fingerprint(path: Path, size: int, time: int) -> int:
    return int.from_bytes(content_digest(path)[:8], "big", signed=True)


def _signature(paths: list[Path]) -> Signature:
    states = ((path.name, path.stat()) for path in paths)
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


@cache
def _digest(folder: Path, signature: Signature) -> bytes:
    digest = blake2b(digest_size=16)
    names = sorted(name for name, *_ in signature)
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        for name, content in zip(names, pool.map(content_digest, (folder / name for name in names)), strict=True):
            digest.update(os.fsencode(name) + b"\0" + content)
    return digest.digest()
