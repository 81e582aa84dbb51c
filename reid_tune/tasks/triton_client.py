"""The task `triton client`: the embeddings of two folders of images by a Triton server, in a file."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import try_load_image
from reid_tune.deploy.triton.client import TritonModel
from reid_tune.errors import InputError
from reid_tune.files import check_output_file, require_writable
from reid_tune.tasks.common.embedding_files import Image, list_images, open_embeddings_file

__all__ = ["RESULTS", "EmbeddingResult", "embed_folders", "require_batch_size"]

RESULTS = "results.json"
_AHEAD = 8  # batches that are decoded before they are asked for


@dataclass(frozen=True)
class EmbeddingResult:
    """The file, and what is in it.

    Attributes:
        broken: What is wrong with images that were left out, in a line each.
    """

    path: Path
    queries: int
    gallery: int
    dimension: int
    broken: tuple[str, ...]


def embed_folders(
    model: TritonModel, query: Path, gallery: Path | None, target: Path, *, batch_size: int
) -> EmbeddingResult:
    """Write the embeddings of all images as the server gives them, queries first, by file name.

    Images that cannot be read are left out, named and counted. The file replaces an older one when all is done.

    Raises:
        InputError: a folder, the batch or the file is unusable, or the server refuses a request.
        InfrastructureError: the server is away, also behind several attempts.
    """
    images = list_images(query, "query") + (list_images(gallery, "gallery") if gallery else [])
    require_batch_size(model, batch_size)
    require_writable(check_output_file("--output_path", target))
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    broken: list[str] = []
    counts = {"query": 0, "gallery": 0}
    console = Console(file=sys.stderr)
    # What was asked and is not answered yet, in order.
    asked: list[Sequence[Image]] = []

    def crops() -> Iterator[np.ndarray]:
        for batch in _decoded(model.preprocessing.image_spec, batches):
            good = [(image, crop) for image, crop in batch if isinstance(crop, np.ndarray)]
            broken.extend(str(fault) for _, fault in batch if not isinstance(fault, np.ndarray))
            if good:
                asked.append([image for image, _ in good])
                yield np.stack([crop for _, crop in good])

    with open_embeddings_file(target) as write:
        answers = model.embed(crops())
        shown = track(
            answers, "embedding", len(batches), console=console, transient=True, disable=not console.is_terminal
        )
        for rows in shown:
            done = asked.pop(0)
            write(done, rows)
            for image in done:
                counts[image.subset] += 1
        if not sum(counts.values()):
            raise InputError(f"no image of {query} can be read: {broken[0]}")
    return EmbeddingResult(target, counts["query"], counts["gallery"], model.dimension, tuple(broken))


def require_batch_size(model: TritonModel, batch_size: int) -> None:
    """Refuse a batch that the server would refuse.

    Raises:
        InputError: it is too large, or no number of images.
    """
    if not 1 <= batch_size <= model.max_batch_size:
        raise InputError(f"-b {batch_size}: the model takes 1 to {model.max_batch_size} images in a request.")


def _decoded(
    image_spec: ImageSpec, batches: Sequence[Sequence[Image]]
) -> Iterator[list[tuple[Image, np.ndarray | InputError]]]:
    """The images of each batch with their crops, or with what is wrong; some batches are decoded ahead."""

    def decode(image: Image) -> np.ndarray | InputError:
        return try_load_image(image.path, image_spec)

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        waiting = [pool.map(decode, batch) for batch in batches[:_AHEAD]]
        for number, batch in enumerate(batches):
            crops = list(waiting.pop(0))
            waiting += [pool.map(decode, later) for later in batches[number + _AHEAD : number + _AHEAD + 1]]
            yield list(zip(batch, crops, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
