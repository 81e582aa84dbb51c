"""The task `inference`: write the embeddings of all images of two folders to a file."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import track

from reid_tune.config.experiment import Experiment
from reid_tune.data.account import FileAccount, accounts_as_dict, describe_accounts
from reid_tune.data.fingerprint import fingerprint
from reid_tune.data.images import decode_images
from reid_tune.data.records import ImageRecord
from reid_tune.errors import InputError
from reid_tune.evaluation.degenerate import describe_collapse
from reid_tune.files import check_output_file, require_writable, write_atomic
from reid_tune.tasks.common.embedding_files import ENDINGS, NO_CAMERA, Image, list_images, open_embeddings_file
from reid_tune.tasks.common.evaluation_sets import evaluation_folders
from reid_tune.tasks.common.feature_files import print_warnings
from reid_tune.tasks.common.model_references import ONNX, resolve_model
from reid_tune.tasks.common.open_model import ModelFile, describe_inputs
from reid_tune.tasks.common.status_log import logged
from reid_tune.tasks.train import describe_run
from reid_tune.training.devices import task_devices
from reid_tune.training.embedding import Embedder
from reid_tune.training.embedding_pool import open_embedding_pool

__all__ = ["InferenceResult", "run_inference"]

_CHUNK = 1024  # Images of one worker that are in memory at a time.


@dataclass(frozen=True)
class InferenceResult:
    """A file of embeddings.

    Attributes:
        path: The file.
        queries: Number of queries.
        gallery: Number of gallery images.
        unparsed: Number of images without identity, as their names do not parse.
        dimension: Number of values in an embedding.
    """

    path: Path
    queries: int
    gallery: int
    unparsed: int
    dimension: int

    def __str__(self) -> str:
        note = f", {self.unparsed} of them without identity, as their names do not parse" if self.unparsed else ""
        return f"{self.queries} queries and {self.gallery} gallery images{note}: embeddings of {self.dimension} values"


def run_inference(experiment: Experiment) -> InferenceResult:
    """Write the embeddings of all images by `inference.checkpoint`, queries first, in the order of file names.

    The embeddings are not L2-normalised. Memory does not grow with the number of images, except for an .npz file.

    Raises:
        InputError: the checkpoint, a folder or the file's name is unusable, which is raised before any image is read;
            or an image cannot be read, or its embedding is not finite.
        RunFailedError: a worker died.
    """
    section, directory = experiment.inference, experiment.task_dir("inference")
    with logged(directory, "inference") as log:
        if not section.checkpoint:
            raise InputError(
                "inference.checkpoint is not set: give a checkpoint, an .onnx file, models:/NAME@ALIAS or sweep:NAME."
            )
        target = Path(section.output_file) if section.output_file else directory / "embeddings.json"
        check_output_file("inference.output_file", target, ENDINGS)
        model = ModelFile(resolve_model(section.checkpoint, ONNX), experiment, "inference")
        images, accounts = _list_images(experiment, target)
        workers = task_devices(experiment, "inference")
        lines = [describe_accounts(accounts), *describe_inputs([model]), describe_run(experiment, "inference", workers)]
        for line in filter(None, lines):
            print(line, file=sys.stderr)
        with open_embedding_pool(workers) as load:
            embedder = load(model)
            require_writable(target)
            write_atomic(directory / "experiment.yaml", experiment.to_yaml())
            log.write("STARTED", "inference started", data=accounts_as_dict(accounts))
            collapse = None
            with open_embeddings_file(target, _fingerprint(experiment)) as write:
                for chunk in _chunks(images, len(workers) * max(_CHUNK, experiment.dataset.val_batch_size)):
                    embeddings = _embed(chunk, embedder, experiment.dataset.num_workers)
                    if chunk[0] is images[0]:
                        collapse = describe_collapse(embeddings)
                    write(chunk, embeddings)
        queries = sum(image.subset == "query" for image in images)
        unparsed = sum(image.camera == NO_CAMERA for image in images)
        result = InferenceResult(target, queries, len(images) - queries, unparsed, embedder.dimension)
        counts = {"queries": queries, "gallery": result.gallery, "unparsed": unparsed}
        log.write("RUNNING", f"{result} in {target}", **counts, **({"warnings": [collapse]} if collapse else {}))
        print_warnings([collapse] if collapse else [])
        return result


def _list_images(experiment: Experiment, target: Path) -> tuple[list[Image], dict[str, FileAccount]]:
    query, gallery = evaluation_folders(experiment, "inference")
    if not query and not gallery:
        raise InputError(
            "no images: set inference.query_dataset or inference.test_dataset (or dataset.query_dataset_dir or "
            "dataset.test_dataset_dir)."
        )
    if target.suffix.lower() == ".npz" and not (query and gallery):
        raise InputError(
            "inference.output_file: an .npz file needs queries and gallery; set inference.query_dataset and "
            "inference.test_dataset, or choose .json or .parquet."
        )
    strict = experiment.dataset.strict
    images: list[Image] = []
    accounts: dict[str, FileAccount] = {}
    subsets: tuple[tuple[Literal["query", "gallery"], str | None], ...] = (("query", query), ("gallery", gallery))
    for subset, folder in subsets:
        if folder:
            subset_images, accounts[subset] = list_images(folder, subset, strict)
            images += subset_images
    return images, accounts


def _fingerprint(experiment: Experiment) -> str:
    """Return the fingerprint of the images as a test set; empty if they are none."""
    query, gallery = evaluation_folders(experiment, "inference")
    try:
        return fingerprint(query, gallery) if query and gallery else ""
    except InputError:  # No name of one folder parses.
        return ""


def _chunks(images: Sequence[Image], size: int) -> Iterator[Sequence[Image]]:
    """Return the images in chunks, with a progress bar on stderr if that is a terminal."""
    console = Console(file=sys.stderr)
    starts = range(0, len(images), size)
    tracked = track(starts, "embedding", console=console, transient=True, disable=not console.is_terminal)
    return (images[start : start + size] for start in tracked)


def _embed(images: Sequence[Image], embedder: Embedder, threads: int) -> np.ndarray:
    records = [ImageRecord(image.path, image.identity, image.camera) for image in images]
    embeddings = embedder.embed(decode_images(records, embedder.image_spec, threads=threads))
    if not (finite := np.isfinite(embeddings).all(axis=1)).all():
        raise InputError(f"the embedding of {images[int(finite.argmin())].path} is not finite; check the model.")
    return embeddings
