"""Check of the images by which a sweep validates: neither the test set nor known to its pretrained weights."""

from collections.abc import Sequence
from dataclasses import replace

from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.data.records import ImageFolder, ImageRecord, training_records
from reid_tune.errors import InputError, error_context
from reid_tune.search_space.load import SweepConfig
from reid_tune.training.data_split import (
    DataSplit,
    count_shared_identities,
    list_training_folders,
    load_split,
    validates_on_test_set,
)
from reid_tune.training.seen_images import find_seen_identities
from reid_tune.training.weights_file import weights_images

__all__ = ["describe_validation", "load_given_validation", "with_unseen_holdouts"]


def with_unseen_holdouts(sweep: SweepConfig) -> SweepConfig:
    """Return the sweep with `dataset.validation_unseen_by`: its pretrained weights that have seen training images.

    All runs of the sweep, whatever their weights, then hold out identities that none of these files has seen.

    Raises:
        InputError: A file of weights, its key or the data cannot be read, or weights have seen identities of a
            validation that the spec gives, so that nothing else can be held out.
    """
    dataset = sweep.experiment.dataset
    files = [file for file in sweep.weights if _has_images(sweep, file)]
    if not files:
        return sweep
    if dataset.validation != "holdout":
        _require_unseen(sweep, files)
        return sweep
    records = _training_records(sweep)
    seen_by = [file for file in files if _count_seen(sweep, records, file)]
    unseen_by = tuple(dict.fromkeys([*dataset.validation_unseen_by, *seen_by]))
    dataset = dataset.model_copy(update={"validation_unseen_by": unseen_by})
    return replace(sweep, experiment=sweep.experiment.model_copy(update={"dataset": dataset}))


def load_given_validation(experiment: Experiment, folders: tuple[ImageFolder, ...]) -> DataSplit:
    """Return the split of a spec whose `dataset.validation` names images.

    Args:
        experiment: The spec.
        folders: Listings of its training folders.

    Raises:
        InputError: The images cannot be read, nothing can be ranked in them, or they are the test set.
    """
    if validates_on_test_set(experiment):
        raise InputError(
            f"dataset.validation = {experiment.dataset.validation!r} is the test set, by which a sweep may decide "
            "nothing: give other images, or holdout."
        )
    with error_context("dataset.validation"):
        split = load_split(experiment, folders)
        split.require_rankable()
    return split


def describe_validation(sweep: SweepConfig, split: DataSplit) -> list[str]:
    """Return sentences on identities that training or pretrained weights know, and on weights that do not say it.

    Args:
        sweep: Result of `with_unseen_holdouts`.
        split: Images of the trials.
    """
    sentences = []
    if split.held_out < 100:
        sentences.append(
            f"{split.held_out} identities are held out for validation: below 100, the mAP of the search is noisy."
        )
    if split.validation and (shared := count_shared_identities(split.train, split.query)):
        sentences.append(
            f"{shared} identities of dataset.validation have the numbers of training identities: if they are the same "
            "people, scores there say nothing about new ones."
        )
    return sentences + _describe_weights(sweep)


def _describe_weights(sweep: SweepConfig) -> list[str]:
    unknown = [_name(sweep, file) for file in sweep.weights if not _has_images(sweep, file)]
    sentences = []
    if seen_by := sweep.experiment.dataset.validation_unseen_by:
        records = _training_records(sweep)
        total, count = len({record.identity for record in records}), _count_seen(sweep, records, *seen_by)
        weights = ", ".join(_name(sweep, file) for file in seen_by)
        sentences.append(
            f"{weights} had images of {count} of the {total} training identities in training: validation splits are "
            f"drawn from the other {total - count} identities only, and intervals are as wide as those few allow."
        )
    if unknown:
        sentences.append(
            f"it is not known whether {', '.join(unknown)} had images of this training set in training, as the file "
            "does not say it: if so, scores on the validation splits are too good."
        )
    return sentences


def _require_unseen(sweep: SweepConfig, files: Sequence[str]) -> None:
    dataset = sweep.experiment.dataset
    with error_context("dataset.validation"):
        split = load_split(sweep.experiment)
    for file in files:
        if count := _count_seen(sweep, [*split.query, *split.gallery], file):
            raise InputError(
                f"{_name(sweep, file)} was trained on images of {count} identities of dataset.validation = "
                f"{dataset.validation!r}, so its scores there say nothing about new ones: start from other weights, "
                "or set dataset.validation to holdout or to images that the weights have never seen."
            )


def _name(sweep: SweepConfig, file: str) -> str:
    """Return the reference that a file replaces, otherwise the file."""
    return next((reference for reference, copy in sweep.weights_references.items() if copy == file), file)


def _training_records(sweep: SweepConfig) -> tuple[ImageRecord, ...]:
    with error_context("dataset.train_dataset_dir"):
        return tuple(training_records(*list_training_folders(sweep.experiment)))


def _has_images(sweep: SweepConfig, file: str) -> bool:
    return weights_images(file, find_passphrase(sweep.experiment)) is not None


def _count_seen(sweep: SweepConfig, records: Sequence[ImageRecord], *files: str) -> int:
    return len(find_seen_identities(records, files, find_passphrase(sweep.experiment)))
