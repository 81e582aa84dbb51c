"""Image cache: the decoded images of a folder in one file, shared by all processes of a machine (page cache)."""

import json
import os
import shutil
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from rich.console import Console
from rich.progress import Progress

from reid_tune.data.image_cache.file import (
    FORMAT,
    SUFFIX,
    CacheHeader,
    lock_path,
    open_pixels,
    partial_files,
    write_cache_file,
)
from reid_tune.data.image_cache.images import DecodedImages
from reid_tune.data.image_cache.lock import BuildLock, build_lock, remove_leftover
from reid_tune.data.image_file import content_digest, describe_error
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import decode_images
from reid_tune.data.records import ImageFolder, ImageRecord, read_image_folder
from reid_tune.errors import InputError
from reid_tune.storage.download_cache import cache_folder

__all__ = ["image_cache_folder", "load_cached_images"]

_READ_THREADS = 8  # a network disk answers slowly, but many requests at once
_CHUNK_IMAGES = 256  # images that are decoded between two status updates
_DISK_MARGIN = 1.05  # required free space as a multiple of the file's size


@dataclass(frozen=True)
class _DecodeJob:
    """How images are decoded: their preparation, the number of threads, and whether to be silent on stderr."""

    spec: ImageSpec
    threads: int | None
    quiet: bool

    def decode(self, records: Sequence[ImageRecord]) -> np.ndarray:
        return decode_images(records, self.spec, threads=self.threads)

    def log(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


class _CacheUnavailableError(Exception):
    """Reason why the disk cannot hold a cache file."""


def image_cache_folder() -> Path:
    """Return `REID_TUNE_CACHE_DIR`, or `images` in the folder of all caches; errors as in `cache_folder`."""
    return cache_folder("" if os.environ.get("REID_TUNE_CACHE_DIR") else "images")


def load_cached_images(
    records: Sequence[ImageRecord],
    spec: ImageSpec,
    *,
    threads: int | None = None,
    quiet: bool = False,
    listings: Sequence[ImageFolder] = (),
) -> DecodedImages:
    """Return the images of `decode_images(records, spec)` from files that hold all images of each record's folder.

    The first process that needs a file builds it, while the others wait. If the disk cannot hold the file, only the
    records are decoded, into memory, and the reason is printed to stderr.

    Args:
        records: One or more images.
        spec: How they are decoded; the normalisation does not matter.
        threads: Number of threads for decoding; None for the number of usable cores.
        quiet: Print no lines and no progress bar to stderr.
        listings: Listings of the records' folders; a folder without one is listed.

    Raises:
        InputError: An image of the records is unreadable, truncated or not an image.
    """
    job = _DecodeJob(spec, threads, quiet)
    listing_of = {listing.path: listing.records for listing in listings}
    indices_by_folder: dict[Path, list[int]] = {}
    for index, record in enumerate(records):
        indices_by_folder.setdefault(record.path.parent, []).append(index)
    arrays: list[np.ndarray] = []
    source, row = np.empty(len(records), np.intp), np.empty(len(records), np.intp)
    for folder, indices in indices_by_folder.items():
        array, rows = _load_folder(folder, listing_of.get(folder), [records[index] for index in indices], job)
        source[indices], row[indices] = len(arrays), rows
        arrays.append(array)
    return DecodedImages(arrays, source, row)


def _load_folder(
    folder: Path, listing: Sequence[ImageRecord] | None, records: list[ImageRecord], job: _DecodeJob
) -> tuple[np.ndarray, Sequence[int]]:
    """Return an array that holds the images of one folder's records, and their rows in it."""
    try:
        all_records = read_image_folder(folder).records if listing is None else listing
        row = {record.path.name: number for number, record in enumerate(all_records)}
        if not all(record.path.name in row for record in records):
            raise InputError(f"{folder} has lost images since it was read")
        return _open_or_build(folder, all_records, job), [row[record.path.name] for record in records]
    except _CacheUnavailableError as error:
        job.log(f"not cached: {error}; decoding into memory")
        return job.decode(records), range(len(records))
    except InputError as error:
        # An image of the folder is unreadable or missing: an error only if it is one of the records.
        array = job.decode(records)
        job.log(f"not cached: {str(error).rstrip('.')}; decoded into memory")
        return array, range(len(records))


def _open_or_build(folder: Path, records: Sequence[ImageRecord], job: _DecodeJob) -> np.ndarray:
    """Map all images of a folder from their cache file, which is built if it is missing or damaged."""
    key = _cache_key(records, job.spec)
    path = image_cache_folder() / f"{key}{SUFFIX}"
    header = CacheHeader(key, _printable(folder.absolute()), len(records), **_form(job.spec), builder=os.getpid())
    try:
        if (pixels := open_pixels(path, key)) is not None:
            remove_leftover(lock_path(path))
            return pixels
        path.parent.mkdir(parents=True, exist_ok=True)
        with build_lock(lock_path(path), job.log) as lock:
            if (pixels := open_pixels(path, key)) is not None:
                return pixels
            for old in (path, *partial_files(path)):
                old.unlink(missing_ok=True)
            _require_free_space(path.parent, header.bytes)
            with closing(_decode_chunks(records, key, job, lock)) as chunks:  # an error ends the bar
                write_cache_file(path, header, chunks)
            pixels = open_pixels(path, key)
    except OSError as error:
        raise _CacheUnavailableError(f"{error.filename or path.parent}: {describe_error(error)}") from None
    if pixels is None:
        raise _CacheUnavailableError(f"{path} was removed or changed by another program")
    return pixels


def _decode_chunks(records: Sequence[ImageRecord], key: str, job: _DecodeJob, lock: BuildLock) -> Generator[np.ndarray]:
    """Yield all images in chunks, and write the progress into the lock for waiting processes."""
    total, console = len(records), Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=job.quiet or not console.is_terminal) as bar:
        task = bar.add_task("decoding", total=total)
        for start in range(0, total, _CHUNK_IMAGES):
            # A single chunk is not worth a line, neither in this process nor in those that wait.
            lock.write_status(f"decode {total:,} images ... {100 * start // total} %" if start else "")
            if start == _CHUNK_IMAGES:
                job.log(f"decoding {total:,} images for the cache ...")
            yield job.decode(records[start : start + _CHUNK_IMAGES])
            bar.update(task, completed=start + _CHUNK_IMAGES)
    if _cache_key(records, job.spec) != key:
        raise InputError(f"images in {records[0].path.parent} changed while they were decoded")


def _form(spec: ImageSpec) -> dict[str, Any]:
    """Return the part of a spec that decides the decoded pixels, by the header's names."""
    return {
        "height": spec.height,
        "width": spec.width,
        "interpolation": spec.interpolation,
        "grey": spec.is_greyscale,
    }


def _cache_key(records: Sequence[ImageRecord], spec: ImageSpec) -> str:
    """Return a hash of the images' names and bytes, of how they are decoded, and of the decoder's version."""
    key = blake2b(json.dumps([FORMAT, PIL.__version__, _form(spec)]).encode(), digest_size=12)
    paths = [record.path for record in records]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        for path, digest in zip(paths, pool.map(content_digest, paths), strict=True):
            key.update(os.fsencode(path.name) + b"\0" + digest)
    return key.hexdigest()


def _require_free_space(folder: Path, file_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < file_bytes * _DISK_MARGIN:
        raise _CacheUnavailableError(
            f"{folder} has {free / 1e6:,.1f} MB free, {file_bytes * _DISK_MARGIN / 1e6:,.1f} are needed"
        )


def _printable(path: Path) -> str:
    return str(path).encode(errors="replace").decode()
