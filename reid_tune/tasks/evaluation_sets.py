"""The test sets that a spec names: its own, and `dataset.extra_tests`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reid_tune.config.experiment import Experiment
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.records import ImageFolder, ImageRecord, read_image_folder
from reid_tune.errors import InputError
from reid_tune.evaluation.unmatched import unmatched
from reid_tune.training.data import EvaluationImages, decode_evaluation

__all__ = ["EvaluationSet", "decode_images", "evaluation_folders", "evaluation_sets"]


@dataclass(frozen=True)
class EvaluationSet:
    """Queries and gallery; the spec's own set has an empty name."""

    name: str
    query: ImageFolder
    gallery: ImageFolder

    def decode(self, image_spec: ImageSpec, threads: int) -> EvaluationImages:
        """See `decode_images`."""
        return decode_images(self.query.records, self.gallery.records, image_spec, threads)

    def left_out(self) -> Iterator[str]:
        """A line for each folder with images whose names do not parse."""
        for folder in (self.query, self.gallery):
            if names := folder.unparsed_names:
                yield f"{folder.path}: {len(names)} image(s) left out, whose names do not parse, such as {names[0]!r}"

    def unmatched(self) -> Iterator[str]:
        """A line where queries have no match."""
        query, gallery = (((x.identity, x.camera) for x in part.records) for part in (self.query, self.gallery))
        if line := unmatched(query, gallery):
            yield f"{self.query.path}: {line}"


def decode_images(
    query: Sequence[ImageRecord], gallery: Sequence[ImageRecord], image_spec: ImageSpec, threads: int
) -> EvaluationImages:
    """The images as a model takes them, those of the gallery without junk."""
    return decode_evaluation(query, gallery, image_spec, threads)


def evaluation_folders(experiment: Experiment, task: str) -> tuple[str | None, str | None]:
    """Query and gallery folder of `evaluate` or `inference`: the section's own, else those of `dataset`."""
    section, dataset = getattr(experiment, task), experiment.dataset
    return section.query_dataset or dataset.query_dataset_dir, section.test_dataset or dataset.test_dataset_dir


def evaluation_sets(experiment: Experiment) -> list[EvaluationSet]:
    """The test sets of `evaluate`, the spec's own first.

    Raises:
        InputError: a folder is not given, missing or unusable, or two sets have one name.
    """
    query, gallery = evaluation_folders(experiment, "evaluate")
    for key, folder in (("query", query), ("test", gallery)):
        if not folder:
            raise InputError(f"neither evaluate.{key}_dataset nor dataset.{key}_dataset_dir is set: give the folder.")
    assert query and gallery
    named = [("", query, gallery)]
    named += [(test.name, test.query_dataset_dir, test.test_dataset_dir) for test in experiment.dataset.extra_tests]
    names = [name for name, *_ in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"dataset.extra_tests has the name {twice[0]!r} twice: give each test set its own.")
    strict = experiment.dataset.strict
    return [
        EvaluationSet(name, read_image_folder(q, strict=strict), read_image_folder(g, strict=strict))
        for name, q, g in named
    ]
