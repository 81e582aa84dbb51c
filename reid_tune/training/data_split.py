"""Division of a spec's images into training, validation and test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from reid_tune.config.dataset import VALIDATION_CHOICES
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.data.account import FileAccount, account_for
from reid_tune.data.listing import Reason
from reid_tune.data.records import ImageFolder, ImageRecord, read_image_folder, read_training_folders, training_records
from reid_tune.data.split_files import LISTS, read_split
from reid_tune.data.splits import Split, split_by_identity
from reid_tune.errors import InputError
from reid_tune.evaluation.rankable import require_rankable
from reid_tune.identities import is_person
from reid_tune.storage.object_store import is_url

__all__ = [
    "GALLERY",
    "QUERY",
    "DataSplit",
    "count_shared_identities",
    "has_validation_split",
    "list_training_folders",
    "load_split",
    "read_evaluation_folders",
    "read_evaluation_records",
    "require_rankable_images",
    "select_same_data_set",
    "validates_on_test_set",
    "validation_folders",
]

QUERY, GALLERY = "query", "bounding_box_test"


@dataclass(frozen=True)
class DataSplit(Split):
    """Split of a spec's data.

    Attributes:
        folders: Listings of the training folders.
        validation: Listings of the query and the gallery folder of the validation; none for a validation split.
    """

    folders: tuple[ImageFolder, ...]
    validation: tuple[ImageFolder, ...] = ()

    @cached_property
    def accounts(self) -> dict[str, FileAccount]:
        """Accounts of the files of the training folders and of the validation folders by their part."""
        people = len(training_records(*self.folders))
        used = len(self.train) if self.validation else self.images
        accounts = {"train": account_for(self.folders, "train", {Reason.UNLISTED: people - used})}
        if self.validation:
            query, gallery = self.validation
            accounts |= {
                "validation query": account_for([query], "query"),
                "validation gallery": account_for([gallery], "gallery"),
            }
        return accounts

    def require_rankable(self) -> None:
        """Check that a score of the validation, if there is one, says something, see `require_rankable_images`."""
        if self.query:
            require_rankable_images(self.query, self.gallery)


def list_training_folders(experiment: Experiment) -> tuple[ImageFolder, ...]:
    """List the training folders of a spec; identities and cameras of different folders stay distinct.

    Raises:
        InputError: No folder is given, one is given twice, missing or unusable, or a name does not parse and
            `dataset.strict` is set.
    """
    dataset = experiment.dataset
    if not dataset.train_folders:
        raise InputError("dataset.train_dataset_dir is not set: give the folder of training images.")
    return read_training_folders(dataset.train_folders, strict=dataset.strict)


def load_split(experiment: Experiment, folders: tuple[ImageFolder, ...] | None = None) -> DataSplit:
    """Return records for training, validation queries and validation gallery; the last two may be empty.

    Args:
        experiment: The spec.
        folders: Result of `list_training_folders`; None lists the folders.

    Raises:
        InputError: A folder or list that the split needs is not given, missing or unusable.
    """
    validation = validation_folders(experiment)
    if folders is None:
        folders = list_training_folders(experiment)
    dataset = experiment.dataset
    if _is_lists(dataset.validation):
        return _with_folders(read_split(dataset.validation, folders), folders)
    records = training_records(*folders)
    if dataset.validation == "holdout":
        seed, fraction = dataset.validation_seed, dataset.validation_fraction
        seen: set[int] = set()
        if dataset.validation_unseen_by:
            from reid_tune.training.seen_images import find_seen_identities  # imports torch

            seen = find_seen_identities(records, dataset.validation_unseen_by, find_passphrase(experiment))
        return _with_folders(split_by_identity(records, seed=seed, fraction=fraction, seen=seen), folders)
    if validation:
        query, gallery = read_evaluation_folders(*validation, strict=dataset.strict)
        return DataSplit(records, query.records, gallery.records, folders, (query, gallery))
    return DataSplit(records, (), (), folders)


def _with_folders(split: Split, folders: tuple[ImageFolder, ...]) -> DataSplit:
    return DataSplit(split.train, split.query, split.gallery, folders)


def has_validation_split(experiment: Experiment) -> bool:
    """Whether identities of the training folders are held out for validation, by their hashes or by lists."""
    return experiment.dataset.validation == "holdout" or _is_lists(experiment.dataset.validation)


def _is_lists(validation: str) -> bool:
    """Whether `dataset.validation` is a folder of `write_split`; one with query images is not, even if it has lists."""
    root = Path(validation)
    return (
        validation not in VALIDATION_CHOICES
        and not (root / QUERY).is_dir()
        and any((root / name).exists() for name in LISTS)
    )


def validation_folders(experiment: Experiment) -> tuple[str | None, str | None] | None:
    """Return the query and the gallery folder of the validation, or None if it needs no folders.

    Raises:
        InputError: `dataset.validation` is neither a known word nor a folder with queries and gallery or with lists.
    """
    dataset = experiment.dataset
    test_folders = (dataset.query_dataset_dir, dataset.test_dataset_dir)
    exist = all(folder and (is_url(folder) or Path(folder).is_dir()) for folder in test_folders)
    if dataset.validation == "test" or (dataset.validation == "auto" and exist):
        return test_folders
    if dataset.validation in VALIDATION_CHOICES or _is_lists(dataset.validation):
        return None
    root = Path(dataset.validation)
    for folder in (root, root / QUERY, root / GALLERY):
        if not folder.is_dir():
            raise InputError(
                f"dataset.validation = {dataset.validation!r}: there is no folder {folder}: give auto, none, test, "
                f"holdout, or a folder that holds {QUERY} and {GALLERY}, or the lists {', '.join(LISTS)}."
            )
    return str(root / QUERY), str(root / GALLERY)


def count_shared_identities(train: Sequence[ImageRecord], test: Sequence[ImageRecord]) -> int:
    """Return the number of test identities, above 0, that are also training identities and would inflate the score.

    With several training folders only those of the test's data set are compared, because every data set numbers its
    identities from the start.

    Args:
        train: Training images.
        test: Test images.
    """
    if len({record.path.parent for record in train}) > 1:
        train = select_same_data_set(train, test)
    train_identities = {record.identity - record.identity_offset for record in train}
    return len(train_identities & {record.identity for record in test if is_person(record.identity)})


def select_same_data_set(train: Sequence[ImageRecord], test: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Return the training images of the test's data set: those whose folder has the same parent as a test folder."""
    roots = {folder.resolve().parent for folder in {record.path.parent for record in test}}
    folders = {folder for folder in {record.path.parent for record in train} if folder.resolve().parent in roots}
    return [record for record in train if record.path.parent in folders]


def validates_on_test_set(experiment: Experiment) -> bool:
    """Whether validation uses the test folders, so that choices made by it depend on the test set."""
    dataset = experiment.dataset
    if dataset.validation == "test":
        return True
    test_folders = {
        Path(folder).resolve() for folder in (dataset.query_dataset_dir, dataset.test_dataset_dir) if folder
    }
    return any(Path(folder).resolve() in test_folders for folder in validation_folders(experiment) or () if folder)


def require_rankable_images(query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]) -> None:
    """Check that identities and cameras of queries and gallery leave something to rank.

    Args:
        query: Query images.
        gallery: Gallery images; their junk does not count.

    Raises:
        InputError: See `require_rankable`.
    """
    require_rankable(
        *(
            np.array([getattr(record, name) for record in records], np.int64)
            for records in (query, gallery)
            for name in ("identity", "camera")
        )
    )


def read_evaluation_folders(
    query: str | None, gallery: str | None, *, strict: bool = False
) -> tuple[ImageFolder, ImageFolder]:
    """List a query and a gallery folder.

    Args:
        query: Folder of query images.
        gallery: Folder of gallery images.
        strict: `dataset.strict`, see `read_image_folder`.

    Raises:
        InputError: A folder is not given, missing or unusable.
    """
    for key, folder in (("query_dataset_dir", query), ("test_dataset_dir", gallery)):
        if not folder:
            raise InputError(f"dataset.{key} is not set: give the folder of {key.split('_')[0]} images.")
    assert query and gallery
    return read_image_folder(query, strict=strict), read_image_folder(gallery, strict=strict)


def read_evaluation_records(
    query: str | None, gallery: str | None, *, strict: bool = False
) -> tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...]]:
    """Return the images of a query and a gallery folder; arguments and errors as in `read_evaluation_folders`."""
    folders = read_evaluation_folders(query, gallery, strict=strict)
    return folders[0].records, folders[1].records
