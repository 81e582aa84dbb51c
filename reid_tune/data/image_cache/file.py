"""One file of the image cache: a header with checksums of itself and of the pixels, which are mapped into memory."""

import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np

from reid_tune.files import atomic_path

__all__ = [
    "FORMAT",
    "SUFFIX",
    "CacheHeader",
    "is_intact",
    "lock_path",
    "open_pixels",
    "partial_files",
    "read_header",
    "write_cache_file",
]

FORMAT = 3  # of the file, and of the decoding: another one decodes again
SUFFIX = ".crops"
_HEADER_BYTES = 32768  # whole pages, and the longest path fits
_DIGEST_DIGITS = 32  # hexadecimal
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class CacheHeader:
    """Description of a file with uint8 pixels [images, height, width, 3], in the order of the file names of a folder.

    Attributes:
        key: Name of the content.
        folder: Folder that the images were read from first.
        images: Number of images.
        height, width: Size in pixels.
        interpolation: Filter of the resizing.
        grey: Whether the images are greyscale.
        builder: ID of the process that wrote the file.
        checksum: CRC-32 of the pixels.
    """

    key: str
    folder: str
    images: int
    height: int
    width: int
    interpolation: str
    grey: bool
    builder: int
    checksum: int = 0

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return _HEADER_BYTES + self.images * self.height * self.width * 3


def write_cache_file(path: Path, header: CacheHeader, chunks: Iterable[np.ndarray]) -> None:
    """Write the header, completed by the checksum, and the pixels; atomically.

    Args:
        path: The file.
        header: Its description.
        chunks: Pixels, uint8 [n, height, width, 3] each.

    Raises:
        OSError: The disk is full, or returns other bytes than were written.
    """
    with atomic_path(path) as temporary:
        checksum = 0
        with temporary.open("wb") as file:
            file.seek(_HEADER_BYTES)
            for pixels in chunks:
                file.write(pixels.data)
                checksum = zlib.crc32(pixels.data, checksum)
            file.seek(0)
            file.write(_pack(replace(header, checksum=checksum)))
        if not is_intact(temporary):
            raise OSError(errno.EIO, "reading back returns other bytes than were written", str(path))


def open_pixels(path: Path, key: str) -> np.ndarray | None:
    """Map the pixels of a file into memory, read-only; return None for a missing, damaged or other file.

    The whole file is read to verify it. A shared lock is held as long as the array lives: the mapping keeps a
    duplicate of the handle that holds it.

    Raises:
        OSError: The disk cannot lock or map files.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        header = read_header(file)
        if header is None or header.key != key or not _has_checksum(file, header.checksum):
            return None
        with suppress(OSError):  # the file of another user
            os.utime(file.fileno())
        shape = (header.images, header.height, header.width, 3)
        return np.asarray(np.memmap(file, np.uint8, "r", _HEADER_BYTES, shape))


def read_header(file: BinaryIO) -> CacheHeader | None:
    """Read a file from its start up to the pixels; return None if the header or the file's size is wrong."""
    block = file.read(_HEADER_BYTES)
    if len(block) < _HEADER_BYTES or _digest(block[_DIGEST_DIGITS:]) != block[:_DIGEST_DIGITS]:
        return None
    fields = json.loads(block[_DIGEST_DIGITS:])
    if fields.pop("format") != FORMAT:
        return None
    header = CacheHeader(**fields)
    return header if os.fstat(file.fileno()).st_size == header.bytes else None


def is_intact(path: Path) -> bool:
    """Whether header, size and pixels are those that were written; reads the whole file."""
    with path.open("rb") as file:
        header = read_header(file)
        return header is not None and _has_checksum(file, header.checksum)


def lock_path(path: Path) -> Path:
    """Return the path that builders of a cache file lock."""
    return path.with_suffix(".lock")


def partial_files(path: Path) -> Iterable[Path]:
    """Return what dead builders left of a cache file; call it while holding the file's lock."""
    return path.parent.glob(f".{path.name}.*")


def _has_checksum(file: BinaryIO, expected: int) -> bool:
    """Whether the pixels have the expected CRC-32; the file must be positioned where they start."""
    checksum = 0
    while block := file.read(_BLOCK_BYTES):
        checksum = zlib.crc32(block, checksum)
    return checksum == expected


def _pack(header: CacheHeader) -> bytes:
    text = json.dumps({"format": FORMAT, **asdict(header)}).encode().ljust(_HEADER_BYTES - _DIGEST_DIGITS)
    return _digest(text) + text


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=_DIGEST_DIGITS // 2).hexdigest().encode()
