"""Test sets of a spec: its own test folders, and `dataset.extra_tests`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from reid_tune.config.experiment import Experiment
from reid_tune.data.account import FileAccount, account_for
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.records import ImageFolder, read_image_folder
from reid_tune.errors import InputError, error_context
from reid_tune.evaluation.unmatched import describe_distractor_queries, describe_unmatched_queries
from reid_tune.files import display_name
from reid_tune.training.data_split import require_rankable_images
from reid_tune.training.image_sets import EvaluationImages, decode_evaluation_images

__all__ = ["EvaluationSet", "evaluation_folders", "evaluation_sets"]


@dataclass(frozen=True)
class EvaluationSet:
    """A test set.

    Attributes:
        name: Name in `dataset.extra_tests`; empty for the spec's own test folders.
        query: Folder of the queries.
        gallery: Folder of the gallery.
    """

    name: str
    query: ImageFolder
    gallery: ImageFolder

    def decode(self, image_spec: ImageSpec, threads: int) -> EvaluationImages:
        """Return the images as a model takes them, without the junk of the gallery.

        Raises:
            InputError: an image cannot be read.
        """
        return decode_evaluation_images(self.query.records, self.gallery.records, image_spec, threads)

    @cached_property
    def accounts(self) -> dict[str, FileAccount]:
        """Accounts of the files of both folders by their part, such as `query` or `NAME query`."""
        prefix = f"{self.name} " if self.name else ""
        return {
            f"{prefix}query": account_for([self.query], "query"),
            f"{prefix}gallery": account_for([self.gallery], "gallery"),
        }

    def require_rankable(self) -> None:
        """Check that a score says something.

        Raises:
            InputError: see `require_rankable_images`.
        """
        with error_context(f"{display_name(self.query.path)} and {display_name(self.gallery.path)}"):
            require_rankable_images(self.query.records, self.gallery.records)

    def describe_queries(self) -> Iterator[str]:
        """Yield lines about queries with the identity of distractors and about queries without a match."""
        if line := describe_distractor_queries(record.identity for record in self.query.records):
            yield f"{display_name(self.query.path)}: {line}"
        query, gallery = (
            ((record.identity, record.camera) for record in folder.records) for folder in (self.query, self.gallery)
        )
        if line := describe_unmatched_queries(query, gallery):
            yield f"{display_name(self.query.path)}: {line}"


def evaluation_folders(experiment: Experiment, task: str) -> tuple[str | None, str | None]:
    """Return the query and gallery folder of `evaluate` or `inference`, by default those of `dataset`."""
    section, dataset = getattr(experiment, task), experiment.dataset
    return section.query_dataset or dataset.query_dataset_dir, section.test_dataset or dataset.test_dataset_dir


def evaluation_sets(experiment: Experiment) -> list[EvaluationSet]:
    """Return the test sets of `evaluate`, the spec's own first.

    Raises:
        InputError: a folder is not set, missing or unusable, two sets have the same name, or one cannot be ranked.
    """
    query, gallery = evaluation_folders(experiment, "evaluate")
    for key, folder in (("query", query), ("test", gallery)):
        if not folder:
            raise InputError(f"neither evaluate.{key}_dataset nor dataset.{key}_dataset_dir is set: give the folder.")
    assert query and gallery
    folders = [("", query, gallery)]
    folders += [(test.name, test.query_dataset_dir, test.test_dataset_dir) for test in experiment.dataset.extra_tests]
    names = [name for name, *_ in folders]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"dataset.extra_tests has the name {duplicates[0]!r} twice: give each test set a different name."
        )
    strict = experiment.dataset.strict
    sets = [
        EvaluationSet(name, read_image_folder(query, strict=strict), read_image_folder(gallery, strict=strict))
        for name, query, gallery in folders
    ]
    for test in sets:
        test.require_rankable()
    return sets
