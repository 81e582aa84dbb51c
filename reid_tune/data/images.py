"""Decoding: image files to one uint8 array, the same way in training, test and deployment."""

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from reid_tune.data.records import ImageRecord
from reid_tune.errors import InputError

__all__ = [
    "DECODE_ERRORS",
    "Interpolation",
    "try_load_image",
    "require_readable",
    "decode_images",
    "decode_readable",
    "load_image",
    "describe_error",
]

Interpolation = Literal["bilinear", "bicubic"]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# What Pillow's decoders raise on bad content, beside OSError.
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


def decode_images(
    records: Sequence[ImageRecord],
    height: int,
    width: int,
    interpolation: Interpolation,
    *,
    grey: bool = False,
    threads: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Decode and resize images on a pool of threads.

    Args:
        grey: three equal channels of luma (ITU-R BT.601) in place of RGB.
        threads: as many as usable cores where None.
        out: uint8 [N, height, width, 3] to fill, such as a memory map; a new array where None.

    Returns:
        `out`, RGB or grey.

    Raises:
        InputError: a file is unreadable, truncated or no image.
    """
    images = np.empty((len(records), height, width, 3), np.uint8) if out is None else out

    def fill(index: int) -> None:
        images[index] = load_image(records[index].path, height, width, interpolation, grey=grey)

    pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)))
    try:
        for _ in pool.map(fill, range(len(records))):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def decode_readable(
    records: Sequence[ImageRecord], height: int, width: int, interpolation: Interpolation, *, grey: bool = False
) -> tuple[list[ImageRecord], np.ndarray, list[str]]:
    """As `decode_images`, without the images that cannot be read.

    Returns:
        The records that are left, their crops, and what is wrong with the others, in a line each.
    """
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        found = list(pool.map(lambda each: try_load_image(each.path, height, width, interpolation, grey=grey), records))
    finally:
        pool.shutdown(cancel_futures=True)
    left = [record for record, crop in zip(records, found, strict=True) if isinstance(crop, np.ndarray)]
    crops = [crop for crop in found if isinstance(crop, np.ndarray)]
    images = np.stack(crops) if crops else np.empty((0, height, width, 3), np.uint8)
    return left, images, [str(fault) for fault in found if isinstance(fault, InputError)]


def require_readable(records: Sequence[ImageRecord], *, threads: int | None = None) -> None:
    """Decode every image and keep none.

    Raises:
        InputError: a file is unreadable, truncated or no image.
    """
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(lambda record: load_image(record.path, 8, 8, "bilinear"), records):
            pass


def load_image(
    path: Path | str, height: int, width: int, interpolation: Interpolation, *, grey: bool = False
) -> np.ndarray:
    """One image as uint8 [height, width, 3], RGB whatever the file holds, or grey as in `decode_images`; errors as there."""
    try:
        with Image.open(path) as image:
            resized = image.convert("L" if grey else "RGB").resize((width, height), FILTERS[interpolation])
            return np.asarray(resized.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"there is no image {path}; check the data set.") from None
    except DECODE_ERRORS as error:
        raise InputError(
            f"cannot read the image {path}: {describe_error(error)}; replace or remove the file."
        ) from None


def try_load_image(
    path: Path, height: int, width: int, interpolation: Interpolation, *, grey: bool = False
) -> np.ndarray | InputError:
    """As `load_image`, with the error as a result."""
    try:
        return load_image(path, height, width, interpolation, grey=grey)
    except InputError as error:
        return error


def describe_error(error: BaseException) -> str:
    """What a fault of a decoder or of the disk says, ready to stand within a sentence."""
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said.rstrip(".") or type(error).__name__
