"""Image files written byte by byte, as the formats' specifications describe them."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from reid_tune.data.image_file import ImageTraits, open_image

HEIGHT, WIDTH = 7, 5
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of a PNG, by the number of channels


def png(pixels: np.ndarray, bits: int = 8, *, extra: bytes = b"") -> bytes:
    """A PNG of pixels [height, width, channels]; `extra` are chunks between the pixels and the end."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2" if bits == 16 else ">u1").reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, bits, COLOUR_TYPES[channels], 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + extra + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(pixels: np.ndarray, *, order: str = "<", orientation: int = 1) -> bytes:
    """An uncompressed TIFF of pixels [height, width, channels] of any number type, in one strip."""
    height, width, channels = pixels.shape
    bits, kind = pixels.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    photometric = 2 if channels > 2 else 1
    tags = [
        (256, [width]),
        (257, [height]),
        (258, [bits] * channels),
        (259, [1]),
        (262, [photometric]),
        (273, [8]),
        (274, [orientation]),
        (277, [channels]),
        (278, [height]),
        (279, [len(data)]),
        *([(338, [2])] if channels in (2, 4) else []),
        (339, [kind] * channels),
    ]
    offset = 8 + len(data)
    after, entries, following = offset + 2 + 12 * len(tags) + 4, b"", b""
    for tag, values in tags:
        content = struct.pack(f"{order}{len(values)}H", *values)
        if len(content) > 4:
            content, following = struct.pack(f"{order}I", after + len(following)), following + content
        entries += struct.pack(f"{order}HHI", tag, 3, len(values)) + content.ljust(4, b"\0")
    directory = struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + following
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, offset)
    return head + data + directory


def exif(orientation: int, *, order: str = "<", kind: int = 3) -> bytes:
    """EXIF data that have an orientation only."""
    value = struct.pack(f"{order}H", orientation).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", 1) + entry + b"\0\0\0\0"


def saved(image: Image.Image, kind: str, others: Sequence[Image.Image] = (), **options: Any) -> bytes:
    """An image as Pillow writes it, with other images in the same file."""
    file = io.BytesIO()
    if others:
        options |= {"save_all": True, "append_images": [other.copy() for other in others]}
    image.copy().save(file, kind, **options)  # a copy: an image keeps options of its last save
    return file.getvalue()


def read_image(path: Path, mode: Literal["RGB", "L"] = "RGB") -> Image.Image:
    return read_image_with_traits(path, mode)[0]


def read_image_with_traits(path: Path, mode: Literal["RGB", "L"] = "RGB") -> tuple[Image.Image, ImageTraits]:
    with open_image(path, mode) as result:
        return result


def noise(channels: int = 3, high: int = 256, dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(channels).integers(0, high, (HEIGHT, WIDTH, channels)).astype(dtype)


def written(folder: Path, content: bytes, name: str = "0001_c1.jpg") -> Path:
    (folder / name).write_bytes(content)
    return folder / name
