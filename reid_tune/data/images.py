"""Decoding of image files to uint8 arrays, the same in training, evaluation and deployment."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from reid_tune.data.image_file import open_image
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.records import ImageRecord
from reid_tune.errors import InputError

__all__ = ["decode_images", "decode_readable", "load_image", "require_readable", "try_load_image"]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode_images(
    records: Sequence[ImageRecord], spec: ImageSpec, *, threads: int | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Decode and resize images on a pool of threads.

    Args:
        records: The images.
        spec: Size, filter and channels; a greyscale image has three equal channels of luma (ITU-R BT.601).
        threads: Number of threads; None for the number of usable cores.
        out: Array to fill, uint8 [N, height, width, 3], such as a memory map; None for a new array.

    Returns:
        `out`.

    Raises:
        InputError: A file cannot be used, see `open_image`.
    """
    images = np.empty((len(records), spec.height, spec.width, 3), np.uint8) if out is None else out

    def fill(index: int) -> None:
        images[index] = load_image(records[index].path, spec)

    pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)))
    try:
        for _ in pool.map(fill, range(len(records))):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def decode_readable(records: Sequence[ImageRecord], spec: ImageSpec) -> tuple[list[ImageRecord], np.ndarray, list[str]]:
    """Decode images as `decode_images` does, and leave out those that cannot be read.

    Returns:
        The readable records, their images uint8 [n, height, width, 3], and one error message for each other record.
    """
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        results = list(pool.map(lambda record: try_load_image(record.path, spec), records))
    finally:
        pool.shutdown(cancel_futures=True)
    readable = [record for record, result in zip(records, results, strict=True) if isinstance(result, np.ndarray)]
    decoded = [result for result in results if isinstance(result, np.ndarray)]
    images = np.stack(decoded) if decoded else np.empty((0, spec.height, spec.width, 3), np.uint8)
    return readable, images, [str(result) for result in results if isinstance(result, InputError)]


def require_readable(records: Sequence[ImageRecord], *, threads: int | None = None) -> None:
    """Decode every image without keeping it.

    Raises:
        InputError: A file cannot be used, see `open_image`.
    """
    spec = ImageSpec(8, 8, "bilinear")
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(lambda record: load_image(record.path, spec), records):
            pass


def load_image(path: Path | str, spec: ImageSpec) -> np.ndarray:
    """Return one image, uint8 [height, width, 3]; arguments and errors as in `decode_images`."""
    with open_image(path, "L" if spec.is_greyscale else "RGB") as (image, _):
        resized = image.resize((spec.width, spec.height), FILTERS[spec.interpolation])
    return np.asarray(resized.convert("RGB"))


def try_load_image(path: Path, spec: ImageSpec) -> np.ndarray | InputError:
    """Return the result of `load_image`, or its error."""
    try:
        return load_image(path, spec)
    except InputError as error:
        return error
