"""The images of one run: training batches, and what is validated on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid_tune.data.augment import Augmentation
from reid_tune.data.images import Interpolation, decode
from reid_tune.data.records import Record, labels, read_folder, training_records
from reid_tune.data.sampler import IdentitySampler
from reid_tune.data.splits import Split, holdout
from reid_tune.errors import InputError
from reid_tune.spec.experiment import Experiment

__all__ = [
    "EvaluationImages",
    "TrainingImages",
    "decode_evaluation",
    "evaluation_images",
    "evaluation_records",
    "interpolation",
    "shared_identities",
    "split_records",
    "training_images",
    "validates_on_test",
]


@dataclass(frozen=True)
class TrainingImages:
    """Decoded training images uint8 [N, H, W, 3], labels int64 [N], the identity of each label, batches, transforms."""

    images: np.ndarray
    labels: np.ndarray
    identities: list[int]
    sampler: IdentitySampler
    augmentation: Augmentation


@dataclass(frozen=True)
class EvaluationImages:
    """Decoded images uint8 [q + g, H, W, 3], queries first, with identities and cameras int64 [q + g]."""

    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    queries: int


def interpolation(backbone: str) -> Interpolation:
    """How images are resized for a backbone, in training, test and deployment."""
    return "bicubic" if backbone.startswith("swin") else "bilinear"


def split_records(experiment: Experiment) -> Split:
    """Records for training, validation queries and validation gallery; the last two are empty without validation.

    Raises:
        InputError: a folder that the split needs is not given, missing or unusable.
    """
    dataset = experiment.dataset
    if not dataset.train_dataset_dir:
        raise InputError("dataset.train_dataset_dir is not set: give the folder of training images.")
    records = training_records(read_folder(dataset.train_dataset_dir))
    if dataset.validation == "holdout":
        return holdout(records, seed=dataset.validation_seed, fraction=dataset.validation_fraction)
    if validates_on_test(experiment):
        query, gallery = evaluation_records(dataset.query_dataset_dir, dataset.test_dataset_dir)
        return Split(records, query, gallery)
    return Split(records, (), ())


def shared_identities(train: Sequence[Record], test: Sequence[Record]) -> int:
    """How many identities (above 0) of the test the network was trained on: each flatters the score."""
    return len({record.identity for record in train} & {record.identity for record in test if record.identity > 0})


def validates_on_test(experiment: Experiment) -> bool:
    """Whether validation looks at the test folders, so that a choice made by it is no longer blind."""
    dataset = experiment.dataset
    if dataset.validation != "auto":
        return dataset.validation == "test"
    folders = (dataset.query_dataset_dir, dataset.test_dataset_dir)
    return all(folder and Path(folder).is_dir() for folder in folders)


def evaluation_records(query: str | None, gallery: str | None) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Records of a query and a gallery folder.

    Raises:
        InputError: a folder is not given, missing or unusable.
    """
    for key, folder in (("query_dataset_dir", query), ("test_dataset_dir", gallery)):
        if not folder:
            raise InputError(f"dataset.{key} is not set: give the folder of {key.split('_')[0]} images.")
    assert query and gallery
    return read_folder(query).records, read_folder(gallery).records


def training_images(experiment: Experiment, records: Sequence[Record]) -> TrainingImages:
    """Decode the training images and prepare batches and transforms."""
    dataset, model = experiment.dataset, experiment.model
    classes, identities = labels(records)
    sampler = IdentitySampler(classes, dataset.batch_size, dataset.num_instances, max(experiment.train.seed, 0))
    augmentation = Augmentation(
        mean=dataset.pixel_mean,
        std=dataset.pixel_std,
        height=model.input_height,
        width=model.input_width,
        flip=dataset.prob,
        padding=dataset.padding,
        erase=dataset.re_prob,
        erasing="noise" if model.backbone.startswith("swin") else "mean",
    )
    images = decode(
        records,
        model.input_height,
        model.input_width,
        interpolation(model.backbone),
        threads=dataset.num_workers,
    )
    return TrainingImages(images, classes, identities, sampler, augmentation)


def evaluation_images(experiment: Experiment, query: Sequence[Record], gallery: Sequence[Record]) -> EvaluationImages:
    """Decode queries and gallery as the spec's model wants them."""
    model, threads = experiment.model, experiment.dataset.num_workers
    return decode_evaluation(
        query, gallery, model.input_height, model.input_width, interpolation(model.backbone), threads
    )


def decode_evaluation(
    query: Sequence[Record], gallery: Sequence[Record], height: int, width: int, resize: Interpolation, threads: int
) -> EvaluationImages:
    """Decode queries and gallery; junk of the gallery is left out, as it counts neither way."""
    records = [*query, *(record for record in gallery if record.identity >= 0)]
    return EvaluationImages(
        decode(records, height, width, resize, threads=threads),
        np.array([record.identity for record in records], np.int64),
        np.array([record.camera for record in records], np.int64),
        len(query),
    )
