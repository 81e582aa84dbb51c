"""Scan of image files: hash of the content, size and other traits, and whether they can be decoded."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reid_tune.data.image_file import ImageError, ImageTraits, content_digest, read_image_with_traits
from reid_tune.data.records import ImageRecord

__all__ = ["ImageScan", "scan_images"]


@dataclass(frozen=True, slots=True)
class ImageScan:
    """Result for one file.

    Attributes:
        record: The file.
        digest: BLAKE2b of its bytes; empty if the file cannot be decoded.
        width, height: Size in pixels; 0 if the file cannot be decoded.
        error: Why it cannot be decoded; None if it can.
        traits: Properties that a user should know of; None if it cannot be decoded.
    """

    record: ImageRecord
    digest: str
    width: int
    height: int
    error: str | None = None
    traits: ImageTraits | None = None


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
        digest = content_digest(record.path).hex()
        traits = read_image_with_traits(record.path)[1]
    except ImageError as error:
        return ImageScan(record, "", 0, 0, error.reason)
    return ImageScan(record, digest, traits.width, traits.height, traits=traits)
