"""What tells one set of images from another."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b
from pathlib import Path

from reid_tune.data.records import read_image_folder
from reid_tune.errors import InputError

__all__ = ["fingerprint"]

_READERS = 8  # threads that read files

Signature = tuple[tuple[str, int, int], ...]


def fingerprint(*folders: Path | str) -> str:
    """BLAKE2b over the names and bytes of the images in some folders, in this order, wherever the folders lie.

    A process reads a folder again only where the name, size or time of a file has changed.

    Raises:
        InputError: a folder has no usable image, or a file cannot be read.
    """
    digest = blake2b(digest_size=16)
    for folder in folders:
        found = read_image_folder(folder)
        paths = [record.path for record in found.records]
        try:
            digest.update(_digest(found.path.absolute(), _signature(paths)))
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}.") from None
    return digest.hexdigest()


def _signature(paths: list[Path]) -> Signature:
    states = ((path.name, path.stat()) for path in paths)
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


@cache
def _digest(folder: Path, signature: Signature) -> bytes:
    digest = blake2b(digest_size=16)
    names = sorted(name for name, *_ in signature)
    with ThreadPoolExecutor(_READERS) as pool:
        for name, content in zip(names, pool.map(_content, (folder / name for name in names)), strict=True):
            digest.update(os.fsencode(name) + b"\0" + content)
    return digest.digest()


def _content(path: Path) -> bytes:
    return blake2b(path.read_bytes(), digest_size=16).digest()
