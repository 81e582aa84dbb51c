"""The task `triton client`: write the embeddings of two folders of images by a Triton server to a file."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from reid_tune.data.account import describe_accounts
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import try_load_image
from reid_tune.deploy.triton.client import TritonModel
from reid_tune.errors import InputError
from reid_tune.files import check_output_file, require_writable
from reid_tune.tasks.common.embedding_files import Image, list_images, open_embeddings_file

__all__ = ["RESULTS", "EmbeddingResult", "embed_folders", "require_batch_size"]

RESULTS = "results.json"
_DECODED_AHEAD = 8  # Batches that are decoded before they are sent.


@dataclass(frozen=True)
class EmbeddingResult:
    """A file of embeddings.

    Attributes:
        path: The file.
        queries: Number of queries.
        gallery: Number of gallery images.
        dimension: Number of values in an embedding.
        errors: Error of each image that was left out.
    """

    path: Path
    queries: int
    gallery: int
    dimension: int
    errors: tuple[str, ...]


def embed_folders(
    model: TritonModel, query: Path, gallery: Path | None, target: Path, *, batch_size: int
) -> EmbeddingResult:
    """Write the embeddings of all images as the server returns them, queries first, in the order of file names.

    Images that cannot be read are left out. The file replaces an older one at the end.

    Args:
        model: The model on the server.
        query: Folder of the queries.
        gallery: Folder of the gallery, if there is one.
        target: The file.
        batch_size: Number of images in a request.

    Raises:
        InputError: a folder, the batch size or the file is unusable, or the server refuses a request.
        InfrastructureError: the server stays unreachable in several attempts.
    """
    images = _list_images(query, gallery)
    require_batch_size(model, batch_size)
    require_writable(check_output_file("--output_path", target))
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    errors: list[str] = []
    counts = {"query": 0, "gallery": 0}
    console = Console(file=sys.stderr)
    # Images of the requests that are not answered yet, in order.
    pending: list[Sequence[Image]] = []
    with open_embeddings_file(target) as write:
        answers = model.embed(_readable_crops(model.preprocessing.image_spec, batches, pending, errors))
        tracked = track(
            answers, "embedding", len(batches), console=console, transient=True, disable=not console.is_terminal
        )
        for embeddings in tracked:
            embedded = pending.pop(0)
            write(embedded, embeddings)
            for image in embedded:
                counts[image.subset] += 1
        if not sum(counts.values()):
            raise InputError(f"no image of {query} can be read: {errors[0]}")
    return EmbeddingResult(target, counts["query"], counts["gallery"], model.dimension, tuple(errors))


def _list_images(query: Path, gallery: Path | None) -> list[Image]:
    """Return the images of both folders, and print what is left out."""
    images, account = list_images(query, "query")
    accounts = {"query": account}
    if gallery:
        gallery_images, accounts["gallery"] = list_images(gallery, "gallery")
        images += gallery_images
    if line := describe_accounts(accounts):
        print(line, file=sys.stderr)
    return images


def require_batch_size(model: TritonModel, batch_size: int) -> None:
    """Refuse a batch size that the server would refuse.

    Raises:
        InputError: the batch size is below 1 or too large.
    """
    if not 1 <= batch_size <= model.max_batch_size:
        raise InputError(f"-b {batch_size}: the model takes 1 to {model.max_batch_size} images in a request.")


def _readable_crops(
    image_spec: ImageSpec, batches: Sequence[Sequence[Image]], pending: list[Sequence[Image]], errors: list[str]
) -> Iterator[np.ndarray]:
    """Yield the crops [n, height, width, 3] uint8 of each batch; add their images to `pending`, others to `errors`."""
    for batch in _decode_batches(image_spec, batches):
        readable = [(image, crop) for image, crop in batch if isinstance(crop, np.ndarray)]
        errors.extend(str(error) for _, error in batch if not isinstance(error, np.ndarray))
        if readable:
            pending.append([image for image, _ in readable])
            yield np.stack([crop for _, crop in readable])


def _decode_batches(
    image_spec: ImageSpec, batches: Sequence[Sequence[Image]]
) -> Iterator[list[tuple[Image, np.ndarray | InputError]]]:
    """Yield the images of each batch with their crops or errors; some batches are decoded ahead."""

    def decode(image: Image) -> np.ndarray | InputError:
        return try_load_image(image.path, image_spec)

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        pending = [pool.map(decode, batch) for batch in batches[:_DECODED_AHEAD]]
        for number, batch in enumerate(batches):
            crops = list(pending.pop(0))
            pending += [
                pool.map(decode, following)
                for following in batches[number + _DECODED_AHEAD : number + _DECODED_AHEAD + 1]
            ]
            yield list(zip(batch, crops, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
