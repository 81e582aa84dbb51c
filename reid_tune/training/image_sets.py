"""Decoded images of a run: for training, with batches and transforms, and for evaluation."""

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
from reid_tune.identities import is_junk
from reid_tune.training.data_split import require_rankable_images
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
    """Decoded training images with their labels, batches and transforms.

    Attributes:
        images: Images [N, H, W, 3].
        labels: Labels of the images, int64 [N].
        identities: Identity of each label.
        sampler: Sampler of the batches.
        augmentation: Transforms of the images of a batch.
    """

    images: DecodedImages
    labels: np.ndarray
    identities: list[int]
    sampler: IdentitySampler
    augmentation: Augmentation


@dataclass(frozen=True)
class EvaluationImages:
    """Decoded queries and gallery.

    Attributes:
        images: Images [q + g, H, W, 3], queries first.
        identities: Identities of the images, int64 [q + g].
        cameras: Cameras of the images, int64 [q + g].
        queries: Number q of queries.
    """

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
        folders: Listings of the folders of these images, see `load_cached_images`; needed for
            `dataset.folder_weights`.
    """
    dataset, image_spec = experiment.dataset, ImageSpec.from_experiment(experiment)
    classes, identities = class_labels(records)
    sampler = IdentitySampler(
        classes,
        dataset.batch_size,
        dataset.num_instances,
        max(experiment.train.seed, 0),
        cameras=np.array([record.camera for record in records]) if dataset.camera_aware else None,
        weights=_folder_weights(records, folders, dataset.folder_weights) if dataset.folder_weights else None,
        cap=dataset.max_images_per_identity,
    )
    augmentation = Augmentation(
        image_spec,
        flip=dataset.prob,
        padding=dataset.padding,
        erase=dataset.re_prob,
        erasing="noise" if experiment.model.backbone.startswith("swin") else "mean",
        jitter=dataset.color_jitter,
        shape=dataset.erasing,
        patch=dataset.random_patch,
        affine=dataset.affine,
        rand_augment=dataset.rand_augment,
        grey=dataset.grey_prob,
        local_grey=dataset.local_grey_prob,
        blur=dataset.blur,
    )
    images = load_cached_images(records, image_spec, threads=dataset.num_workers, quiet=rank() != 0, listings=folders)
    return TrainingImages(images, classes, identities, sampler, augmentation)


def _folder_weights(
    records: Sequence[ImageRecord], folders: Sequence[ImageFolder], weights: Sequence[float]
) -> np.ndarray:
    """Return the weight of each record's folder, float64 [N]."""
    weight_of = {folder.path: weight for folder, weight in zip(folders, weights, strict=True)}
    return np.array([weight_of[record.path.parent] for record in records])


def load_evaluation_images(
    experiment: Experiment,
    query: Sequence[ImageRecord],
    gallery: Sequence[ImageRecord],
    folders: Sequence[ImageFolder] = (),
) -> EvaluationImages:
    """Decode queries and gallery in the form that the spec's model expects.

    Args:
        experiment: The spec.
        query: Query images.
        gallery: Gallery images.
        folders: Listings of the folders of these images, see `load_cached_images`.
    """
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
    """Decode queries and gallery without the junk of the gallery, which does not count.

    Args:
        query: Query images.
        gallery: Gallery images.
        image_spec: Form of the decoded images.
        threads: Number of threads that decode.
        folders: Listings of the folders of these images, see `load_cached_images`.

    Raises:
        InputError: An image cannot be read, or nothing can be ranked, see `require_rankable_images`.
    """
    require_rankable_images(query, gallery)
    records = [*query, *(record for record in gallery if not is_junk(record.identity))]
    identities, cameras = (
        np.array([getattr(record, name) for record in records], np.int64) for name in ("identity", "camera")
    )
    images = load_cached_images(records, image_spec, threads=threads, listings=folders)
    return EvaluationImages(images, identities, cameras, len(query))
