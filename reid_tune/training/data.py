"""The images of one run: training batches, and what is validated on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid_tune.data.augment import Augmentation
from reid_tune.data.images import Interpolation, decode
from reid_tune.data.records import Folder, Record, labels, read_folder, read_training_folders, training_records
from reid_tune.data.sampler import IdentitySampler
from reid_tune.data.splits import Split, holdout
from reid_tune.errors import InputError
from reid_tune.spec.experiment import Experiment

__all__ = [
    "EvaluationImages",
    "TrainingImages",
    "beside",
    "decode_evaluation",
    "evaluation_images",
    "evaluation_records",
    "interpolation",
    "shared_identities",
    "split_records",
    "train_records",
    "training_folders",
    "training_images",
    "validates_on_test",
    "validation_folders",
]

QUERY, GALLERY = "query", "bounding_box_test"


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


def training_folders(experiment: Experiment) -> tuple[Folder, ...]:
    """The training folders of a spec, their identities and cameras kept apart.

    Raises:
        InputError: none is given, one is given twice, missing or unusable, or a name does not parse and
            `dataset.strict` is set.
    """
    dataset = experiment.dataset
    if not dataset.train_folders:
        raise InputError("dataset.train_dataset_dir is not set: give the folder of training images.")
    return read_training_folders(dataset.train_folders, strict=dataset.strict)


def train_records(experiment: Experiment) -> tuple[Record, ...]:
    """All training records of a spec (identities above 0), those of a hold-out too; errors as of `training_folders`."""
    return training_records(*training_folders(experiment))


def split_records(experiment: Experiment) -> Split:
    """Records for training, validation queries and validation gallery; the last two are empty without validation.

    Raises:
        InputError: a folder that the split needs is not given, missing or unusable.
    """
    dataset = experiment.dataset
    validation = validation_folders(experiment)
    records = train_records(experiment)
    if dataset.validation == "holdout":
        return holdout(records, seed=dataset.validation_seed, fraction=dataset.validation_fraction)
    if validation:
        return Split(records, *evaluation_records(*validation, strict=dataset.strict))
    return Split(records, (), ())


def validation_folders(experiment: Experiment) -> tuple[str | None, str | None] | None:
    """Query and gallery folder of the validation; None where it needs none.

    Raises:
        InputError: `dataset.validation` is neither one of its words nor a folder with query and bounding_box_test.
    """
    dataset = experiment.dataset
    test = (dataset.query_dataset_dir, dataset.test_dataset_dir)
    exist = all(folder and Path(folder).is_dir() for folder in test)
    if dataset.validation == "test" or (dataset.validation == "auto" and exist):
        return test
    if dataset.validation in ("auto", "none", "holdout"):
        return None
    root = Path(dataset.validation)
    for folder in (root, root / QUERY, root / GALLERY):
        if not folder.is_dir():
            raise InputError(
                f"dataset.validation = {dataset.validation!r}: there is no folder {folder}; give auto, none, test, "
                f"holdout, or a folder that holds {QUERY} and {GALLERY}."
            )
    return str(root / QUERY), str(root / GALLERY)


def shared_identities(train: Sequence[Record], test: Sequence[Record]) -> int:
    """How many identities (above 0) of the test the network was trained on: each flatters the score.

    Of several training folders those alone are compared that lie beside the test's, as each data set numbers its
    people anew.
    """
    if len({record.path.parent for record in train}) > 1:
        train = beside(train, test)
    known = {record.identity - record.shift for record in train}
    return len(known & {record.identity for record in test if record.identity > 0})


def beside(train: Sequence[Record], test: Sequence[Record]) -> list[Record]:
    """The training records of the data set of the test: those whose folder lies beside one of the test's."""
    roots = {folder.resolve().parent for folder in {record.path.parent for record in test}}
    folders = {folder for folder in {record.path.parent for record in train} if folder.resolve().parent in roots}
    return [record for record in train if record.path.parent in folders]


def validates_on_test(experiment: Experiment) -> bool:
    """Whether validation looks at the test folders, so that a choice made by it is no longer blind."""
    dataset = experiment.dataset
    if dataset.validation == "test":
        return True
    test = {Path(folder).resolve() for folder in (dataset.query_dataset_dir, dataset.test_dataset_dir) if folder}
    return any(Path(folder).resolve() in test for folder in validation_folders(experiment) or () if folder)


def evaluation_records(
    query: str | None, gallery: str | None, *, strict: bool = False
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Records of a query and a gallery folder.

    Args:
        strict: `dataset.strict`, see `read_folder`.

    Raises:
        InputError: a folder is not given, missing or unusable.
    """
    for key, folder in (("query_dataset_dir", query), ("test_dataset_dir", gallery)):
        if not folder:
            raise InputError(f"dataset.{key} is not set: give the folder of {key.split('_')[0]} images.")
    assert query and gallery
    return read_folder(query, strict=strict).records, read_folder(gallery, strict=strict).records


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
        jitter=dataset.color_jitter,
        channels=model.input_channels,
    )
    images = decode(
        records,
        model.input_height,
        model.input_width,
        interpolation(model.backbone),
        grey=model.input_channels == 1,
        threads=dataset.num_workers,
    )
    return TrainingImages(images, classes, identities, sampler, augmentation)


def evaluation_images(experiment: Experiment, query: Sequence[Record], gallery: Sequence[Record]) -> EvaluationImages:
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
    query: Sequence[Record],
    gallery: Sequence[Record],
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
        decode(records, height, width, resize, grey=grey, threads=threads),
        np.array([record.identity for record in records], np.int64),
        np.array([record.camera for record in records], np.int64),
        len(query),
    )
