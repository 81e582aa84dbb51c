"""Decode once: the crops of a folder in one file, shared by all processes of a machine through its page cache."""

import json
import os
import shutil
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

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
from reid_tune.data.image_cache.lock import BuildLock, build_lock
from reid_tune.data.images import Interpolation, decode_images, describe_error
from reid_tune.data.records import ImageRecord, read_image_folder
from reid_tune.errors import InputError
from reid_tune.storage.download_cache import cache_folder

__all__ = ["load_cached_images", "image_cache_folder"]

_READERS = 8  # threads that read files: a network disk answers slowly, but many at once
_CHUNK = 256  # images decoded at a time
_SPARE = 1.05  # room wanted on the disk, as a multiple of the need


@dataclass(frozen=True)
class _Form:
    """How images are decoded, see `decode_images`."""

    height: int
    width: int
    interpolation: Interpolation
    grey: bool


@dataclass(frozen=True)
class _Work:
    """A form of images and how to get there: threads that decode, and whether stderr hears of it."""

    form: _Form
    threads: int | None
    quiet: bool

    def decode(self, records: Sequence[ImageRecord]) -> np.ndarray:
        form = self.form
        return decode_images(records, form.height, form.width, form.interpolation, grey=form.grey, threads=self.threads)

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)


class _NoPlace(Exception):
    """Why the disk cannot keep a file."""


def image_cache_folder() -> Path:
    """The cache's place: `REID_TUNE_CACHE_DIR` itself, else `images` in the folder of all caches; errors as of
    `cache_folder`.
    """
    return cache_folder("" if os.environ.get("REID_TUNE_CACHE_DIR") else "images")


def load_cached_images(
    records: Sequence[ImageRecord],
    height: int,
    width: int,
    interpolation: Interpolation,
    *,
    grey: bool = False,
    threads: int | None = None,
    quiet: bool = False,
) -> DecodedImages:
    """The images of `decode_images(records, ...)`, from files that hold the crops of each record's folder.

    A file is built by the first process that wants it, while the others wait. Where the disk cannot keep it, the
    records alone are decoded into memory, and a line says why.

    Args:
        records: one or more.
        threads: for decoding, as many as usable cores where None.
        quiet: no lines and no bar on stderr.

    Raises:
        InputError: an image of the records is unreadable, truncated or no image.
    """
    work = _Work(_Form(height, width, interpolation, grey), threads, quiet)
    places: dict[Path, list[int]] = {}
    for place, record in enumerate(records):
        places.setdefault(record.path.parent, []).append(place)
    arrays: list[np.ndarray] = []
    source, row = np.empty(len(records), np.intp), np.empty(len(records), np.intp)
    for folder, own in places.items():
        array, rows = _folder(folder, [records[place] for place in own], work)
        source[own], row[own] = len(arrays), rows
        arrays.append(array)
    return DecodedImages(arrays, source, row)


def _folder(folder: Path, records: list[ImageRecord], work: _Work) -> tuple[np.ndarray, Sequence[int]]:
    """An array with the images of records of one folder, and their rows in it."""
    try:
        everything = read_image_folder(folder).records
        row = {record.path.name: number for number, record in enumerate(everything)}
        if not all(record.path.name in row for record in records):
            raise InputError(f"{folder} has lost images since it was read")
        return _mapped(folder, everything, work), [row[record.path.name] for record in records]
    except _NoPlace as error:
        work.say(f"not cached: {error}; decoding into memory")
        return work.decode(records), range(len(records))
    except InputError as error:
        # An image of the folder is unreadable or gone: a fault only where it is one of the records.
        array = work.decode(records)
        work.say(f"not cached: {str(error).rstrip('.')}; decoded into memory")
        return array, range(len(records))


def _mapped(folder: Path, records: Sequence[ImageRecord], work: _Work) -> np.ndarray:
    """All images of a folder, mapped from their file, which is built where it is missing or damaged."""
    key = _key(records, work.form)
    path = image_cache_folder() / f"{key}{SUFFIX}"
    header = CacheHeader(key, _printable(folder.absolute()), len(records), **asdict(work.form), builder=os.getpid())
    try:
        if (found := open_pixels(path, key)) is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with build_lock(lock_path(path), work.say) as lock:
            if (found := open_pixels(path, key)) is not None:
                return found
            for old in (path, *partial_files(path)):
                old.unlink(missing_ok=True)
            _require_room(path.parent, header.bytes)
            with closing(_decoded(records, key, work, lock)) as chunks:  # an error ends the bar
                write_cache_file(path, header, chunks)
            found = open_pixels(path, key)
    except OSError as error:
        raise _NoPlace(f"{error.filename or path.parent}: {describe_error(error)}") from None
    if found is None:
        raise _NoPlace(f"{path} was removed or changed by something else")
    return found


def _decoded(records: Sequence[ImageRecord], key: str, work: _Work, lock: BuildLock) -> Generator[np.ndarray]:
    """All images, some at a time; those who wait for the lock learn how far they are."""
    total, console = len(records), Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=work.quiet or not console.is_terminal) as bar:
        task = bar.add_task("decoding", total=total)
        for start in range(0, total, _CHUNK):
            # A handful of images is not worth a line, here and where others wait.
            lock.tell(f"decode {total:,} images ... {100 * start // total} %" if start else "")
            if start == _CHUNK:
                work.say(f"decoding {total:,} images for the cache ...")
            yield work.decode(records[start : start + _CHUNK])
            bar.update(task, completed=start + _CHUNK)
    if _key(records, work.form) != key:
        raise InputError(f"images in {records[0].path.parent} changed while they were decoded")


def _key(records: Sequence[ImageRecord], form: _Form) -> str:
    """A name for the images of a folder: its files' names and bytes, how they are decoded and by what."""
    key = blake2b(json.dumps([FORMAT, PIL.__version__, asdict(form)]).encode(), digest_size=12)
    with ThreadPoolExecutor(_READERS) as pool:
        for record, content in zip(records, pool.map(_content, records), strict=True):
            key.update(os.fsencode(record.path.name) + b"\0" + content)
    return key.hexdigest()


def _content(record: ImageRecord) -> bytes:
    try:
        return blake2b(record.path.read_bytes(), digest_size=16).digest()
    except OSError as error:
        raise InputError(f"cannot read the image {record.path}: {describe_error(error)}.") from None


def _require_room(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need * _SPARE:
        raise _NoPlace(f"{folder} has {free / 1e9:.1f} GB free, {need * _SPARE / 1e9:.1f} are needed")


def _printable(path: Path) -> str:
    return str(path).encode(errors="replace").decode()
