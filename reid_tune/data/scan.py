"""A look into every image file: its content's hash, its size, whether it can be decoded."""

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
    """One file: BLAKE2b of its bytes, width and height in pixels, and what is wrong with it; ("", 0, 0) if unread."""

    record: ImageRecord
    digest: str
    width: int
    height: int
    fault: str | None = None


def scan_images(records: Sequence[ImageRecord], *, threads: int | None = None) -> list[ImageScan]:
    """Read and decode every file, keep none; no file is an error, see `Scan.fault`.

    Args:
        threads: as many as usable cores where None.
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
