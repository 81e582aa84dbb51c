"""The images of one run: training batches, and what is validated on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid_tune.config.experiment import Experiment
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.image_cache.cache import load_cached_images
from reid_tune.data.image_cache.images import DecodedImages
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.records import ImageFolder, ImageRecord, class_labels
from reid_tune.data.sampler import IdentitySampler
from reid_tune.training.distributed import rank

__all__ = [
    "EvaluationImages",
    "TrainingImages",
    "decode_evaluation_images",
    "load_evaluation_images",
    "load_training_images",
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


def load_training_images(
    experiment: Experiment, records: Sequence[ImageRecord], folders: Sequence[ImageFolder] = ()
) -> TrainingImages:
    """Decode the training images and prepare batches and transforms.

    Args:
        experiment: The spec.
        records: The training images.
        folders: Listings of their folders, see `load_cached_images`.
    """
    dataset, image_spec = experiment.dataset, ImageSpec.from_experiment(experiment)
    classes, identities = class_labels(records)
    sampler = IdentitySampler(classes, dataset.batch_size, dataset.num_instances, max(experiment.train.seed, 0))
    augmentation = Augmentation(
        image_spec,
        flip=dataset.prob,
        padding=dataset.padding,
        erase=dataset.re_prob,
        erasing="noise" if experiment.model.backbone.startswith("swin") else "mean",
        jitter=dataset.color_jitter,
    )
    images = load_cached_images(records, image_spec, threads=dataset.num_workers, quiet=rank() != 0, listings=folders)
    return TrainingImages(images, classes, identities, sampler, augmentation)


def load_evaluation_images(
    experiment: Experiment,
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    folders: Sequence[ImageFolder] = (),
) -> EvaluationImages:
    """Decode queries and gallery as the spec's model wants them."""
    return decode_evaluation_images(
        query, gallery, ImageSpec.from_experiment(experiment), experiment.dataset.num_workers, folders
    )


def decode_evaluation_images(
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    image_spec: ImageSpec,
    threads: int,
    folders: Sequence[ImageFolder] = (),
) -> EvaluationImages:
    """Decode queries and gallery; junk of the gallery is left out, as it counts neither way."""
    records = [*query, *(record for record in gallery if record.identity >= 0)]
    return EvaluationImages(
        load_cached_images(records, image_spec, threads=threads, listings=folders),
        np.array([record.identity for record in records], np.int64),
        np.array([record.camera for record in records], np.int64),
        len(query),
    )
