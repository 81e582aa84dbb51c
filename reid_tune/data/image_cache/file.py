"""One file of the cache: a header that vouches for itself and for the pixels behind it, to be mapped into memory."""

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
    "partial_files",
    "lock_path",
    "open_pixels",
    "read_header",
    "write_cache_file",
]

FORMAT = 2
SUFFIX = ".crops"
_SIZE = 32768  # bytes of the header: whole pages, and the longest path fits.
_DIGEST = 32  # hexadecimal digits
_BLOCK = 1 << 22


@dataclass(frozen=True)
class CacheHeader:
    """What a file holds: uint8 [images, height, width, 3] in the order of the file names of a folder.

    `key` names the content, `folder` is where it was read first, `builder` is the process that wrote it.
    """

    key: str
    folder: str
    images: int
    height: int
    width: int
    interpolation: str
    grey: bool
    builder: int
    checksum: int = 0  # CRC-32 of the pixels

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return _SIZE + self.images * self.height * self.width * 3


def write_cache_file(path: Path, header: CacheHeader, chunks: Iterable[np.ndarray]) -> None:
    """Write the pixels, uint8 [n, height, width, 3] at a time, and the header with their checksum; whole or not at all.

    Raises:
        OSError: the disk is full, or does not give back what was written.
    """
    with atomic_path(path) as temporary:
        checksum = 0
        with temporary.open("wb") as file:
            file.seek(_SIZE)
            for pixels in chunks:
                file.write(pixels.data)
                checksum = zlib.crc32(pixels.data, checksum)
            file.seek(0)
            file.write(_pack(replace(header, checksum=checksum)))
        if not is_intact(temporary):
            raise OSError(errno.EIO, "what was written comes back as something else", str(path))


def open_pixels(path: Path, key: str) -> np.ndarray | None:
    """Map a file into memory, read-only; None where there is none, or one that is not as it was written.

    The whole file is read for it. A shared lock is held as long as the array lives: the mapping keeps a duplicate of
    the handle that has it.

    Raises:
        OSError: the disk can neither lock nor map files.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        header = read_header(file)
        if header is None or header.key != key or not _as_written(file, header):
            return None
        with suppress(OSError):  # the file of another user
            os.utime(file.fileno())
        shape = (header.images, header.height, header.width, 3)
        return np.asarray(np.memmap(file, np.uint8, "r", _SIZE, shape))


def read_header(file: BinaryIO) -> CacheHeader | None:
    """The header of a file at its begin, which is read up to the pixels; None where header or size are wrong."""
    block = file.read(_SIZE)
    if len(block) < _SIZE or _digest(block[_DIGEST:]) != block[:_DIGEST]:
        return None
    fields = json.loads(block[_DIGEST:])
    if fields.pop("format") != FORMAT:
        return None
    header = CacheHeader(**fields)
    return header if os.fstat(file.fileno()).st_size == header.bytes else None


def is_intact(path: Path) -> bool:
    """Whether header and size are right and the pixels are those that were written; reads the whole file."""
    with path.open("rb") as file:
        header = read_header(file)
        return header is not None and _as_written(file, header)


def lock_path(path: Path) -> Path:
    """What a builder of a file of the cache locks."""
    return path.with_suffix(".lock")


def partial_files(path: Path) -> Iterable[Path]:
    """What builders that died have left of a file; to be looked for under its lock."""
    return path.parent.glob(f".{path.name}.*")


def _as_written(file: BinaryIO, header: CacheHeader) -> bool:
    """Whether the pixels are those of the header, of a file that was read as far as they begin."""
    checksum = 0
    while block := file.read(_BLOCK):
        checksum = zlib.crc32(block, checksum)
    return checksum == header.checksum


def _pack(header: CacheHeader) -> bytes:
    text = json.dumps({"format": FORMAT, **asdict(header)}).encode().ljust(_SIZE - _DIGEST)
    return _digest(text) + text


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=_DIGEST // 2).hexdigest().encode()
