"""Scan of image files: hash of the content, size, and whether they can be decoded."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b

from PIL import Image

from reid_tune.data.images import DECODE_ERRORS, describe_error
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
    """

    record: ImageRecord
    digest: str
    width: int
    height: int
    error: str | None = None


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
        digest = blake2b(record.path.read_bytes(), digest_size=16).hexdigest()
        with Image.open(record.path) as image:
            image.convert("RGB")
            return ImageScan(record, digest, *image.size)
    except DECODE_ERRORS as error:
        return ImageScan(record, "", 0, 0, describe_error(error))
