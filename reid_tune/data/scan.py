"""A look into every image file: its content's hash, its size, whether it can be decoded."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b

from PIL import Image

from reid_tune.data.images import FAULTS, reason
from reid_tune.data.records import Record

__all__ = ["Scan", "scan"]


@dataclass(frozen=True, slots=True)
class Scan:
    """One file: BLAKE2b of its bytes, width and height in pixels, and what is wrong with it; ("", 0, 0) if unread."""

    record: Record
    digest: str
    width: int
    height: int
    fault: str | None = None


def scan(records: Sequence[Record], *, threads: int | None = None) -> list[Scan]:
    """Read and decode every file, keep none; no file is an error, see `Scan.fault`.

    Args:
        threads: as many as usable cores where None.
    """
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(_scan, records))


def _scan(record: Record) -> Scan:
    try:
        digest = blake2b(record.path.read_bytes(), digest_size=16).hexdigest()
        with Image.open(record.path) as image:
            image.convert("RGB")
            return Scan(record, digest, *image.size)
    except FAULTS as error:
        return Scan(record, "", 0, 0, reason(error))
