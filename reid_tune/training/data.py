"""The images of one run: training batches, and what is validated on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid_tune.config.experiment import Experiment
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.image_cache.cache import load_cached_images
from reid_tune.data.image_cache.images import DecodedImages
from reid_tune.data.images import Interpolation
from reid_tune.data.records import ImageRecord, class_labels
from reid_tune.data.sampler import IdentitySampler
from reid_tune.training.distributed import rank

__all__ = [
    "EvaluationImages",
    "TrainingImages",
    "decode_evaluation",
    "evaluation_images",
    "interpolation",
    "training_images",
]


@dataclass(frozen=True)
class TrainingImages:
    """Decoded training images [N, H, W, 3], labels int64 [N], the identity of each label, batches, transforms."""

    images: DecodedImages
    labels: np.ndarray
    identities: list[int]
    sampler: IdentitySampler
    augmentation: Augmentation


@dataclass(frozen=True)
class EvaluationImages:
    """Decoded images [q + g, H, W, 3], queries first, with identities and cameras int64 [q + g]."""

    images: DecodedImages
    identities: np.ndarray
    cameras: np.ndarray
    queries: int


def interpolation(backbone: str) -> Interpolation:
    """How images are resized for a backbone, in training, test and deployment."""
    return "bicubic" if backbone.startswith("swin") else "bilinear"


def training_images(experiment: Experiment, records: Sequence[ImageRecord]) -> TrainingImages:
    """Decode the training images and prepare batches and transforms."""
    dataset, model = experiment.dataset, experiment.model
    classes, identities = class_labels(records)
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
        jitter=dataset.color_jitter,
        channels=model.input_channels,
    )
    images = load_cached_images(
        records,
        model.input_height,
        model.input_width,
        interpolation(model.backbone),
        grey=model.input_channels == 1,
        threads=dataset.num_workers,
        quiet=rank() != 0,
    )
    return TrainingImages(images, classes, identities, sampler, augmentation)


def evaluation_images(
    experiment: Experiment, query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]
) -> EvaluationImages:
    """Decode queries and gallery as the spec's model wants them."""
    model = experiment.model
    return decode_evaluation(
        query,
        gallery,
        model.input_height,
        model.input_width,
        interpolation(model.backbone),
        experiment.dataset.num_workers,
        grey=model.input_channels == 1,
    )


def decode_evaluation(
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    height: int,
    width: int,
    resize: Interpolation,
    threads: int,
    *,
    grey: bool = False,
) -> EvaluationImages:
    """Decode queries and gallery; junk of the gallery is left out, as it counts neither way."""
    records = [*query, *(record for record in gallery if record.identity >= 0)]
    return EvaluationImages(
        load_cached_images(records, height, width, resize, grey=grey, threads=threads),
        np.array([record.identity for record in records], np.int64),
        np.array([record.camera for record in records], np.int64),
        len(query),
    )
