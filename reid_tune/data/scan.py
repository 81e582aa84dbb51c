"""Scan of image files: hash of the pixels, size and other traits, and whether they can be decoded."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from reid_tune.data.image_file import ImageError, ImageTraits, open_image
from reid_tune.data.records import ImageRecord

__all__ = ["ImageScan", "scan_images"]

_CONSTANT_RANGE = 2  # of 255, between the lowest and the highest value of a channel


@dataclass(frozen=True, slots=True)
class ImageScan:
    """Result for one file.

    Attributes:
        record: The file.
        digest: BLAKE2b of size and pixels of the upright RGB image; empty if the file cannot be decoded.
        width, height: Size in pixels; 0 if the file cannot be decoded.
        error: Why it cannot be decoded; None if it can.
        remedy: What to do about the error.
        traits: Properties that a user should know of; None if it cannot be decoded.
        is_constant: Whether the image is of a single colour, up to the noise of a compression.
    """

    record: ImageRecord
    digest: str
    width: int
    height: int
    error: str | None = None
    traits: ImageTraits | None = None
    is_constant: bool = False
    remedy: str = ""


def scan_images(records: Sequence[ImageRecord], *, threads: int | None = None) -> list[ImageScan]:
    """Read and decode every file without keeping it; errors are reported in `ImageScan.error`.

    Args:
        records: The files.
        threads: Number of threads; None for the number of usable cores.
    """
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(_scan, records))


def _scan(record: ImageRecord) -> ImageScan:
    try:
        with open_image(record.path) as (image, traits):
            digest = blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).hexdigest()
            ranges: Any = image.getextrema()  # lowest and highest value of each channel
            is_constant = all(high - low <= _CONSTANT_RANGE for low, high in ranges)
            return ImageScan(record, digest, *image.size, traits=traits, is_constant=is_constant)
    except ImageError as error:
        return ImageScan(record, "", 0, 0, error.reason, remedy=error.remedy)
