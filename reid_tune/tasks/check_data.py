"""The task `check-data`: what a spec's data hold, and what is wrong with them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.data.contact_sheet import require_picture_name, draw_contact_sheet
from reid_tune.data.data_quality import (
    Finding,
    Subset,
    find_duplicates,
    find_small,
    find_undersampled,
    find_unmatched_queries,
    find_unparsed_names,
    find_unreadable,
)
from reid_tune.data.records import ImageFolder, class_labels, read_image_folder
from reid_tune.data.sampler import IdentitySampler
from reid_tune.data.scan import ImageScan, scan_images
from reid_tune.errors import InputError
from reid_tune.training.data_split import (
    count_shared_identities,
    has_validation_split,
    list_training_folders,
    load_split,
    select_same_data_set,
    validation_folders,
)

__all__ = ["Report", "SubsetCounts", "check_data"]

Pair = tuple[Subset, Subset]
TRAIN, TEST, VALIDATION = "train", "the test", "validation"


@dataclass(frozen=True)
class SubsetCounts:
    """Counts of one subset; identities are those above 0, images include junk and distractors."""

    name: str
    images: int
    identities: int
    cameras: int
    junk: int
    distractors: int
    left_out: int


@dataclass(frozen=True)
class Report:
    """All subsets and findings."""

    subsets: tuple[SubsetCounts, ...]
    findings: tuple[Finding, ...]

    @property
    def spoiled(self) -> bool:
        """Whether a finding makes training fail or a score worthless."""
        return any(finding.severity == "error" for finding in self.findings)

    def rows(self) -> dict[str, dict[str, int]]:
        """The counts of each subset by its name, for a table."""
        rows = {subset.name: asdict(subset) for subset in self.subsets}
        return {name: {key: value for key, value in row.items() if key != "name"} for name, row in rows.items()}

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON."""
        findings = [asdict(finding) for finding in self.findings]
        return {"subsets": self.rows(), "findings": findings, "spoiled": self.spoiled}


def check_data(experiment: Experiment, sheet: Path | None = None) -> Report:
    """Look at every image of a spec: training, query, gallery, validation and extra tests, where they are given.

    Args:
        sheet: a .png or .jpg for a contact sheet of the training images, of the gallery where there are none.

    Raises:
        InputError: no folder is given, one cannot be read or holds no crop, or the sheet cannot be written.
    """
    if sheet:
        require_picture_name(sheet)
    strict, experiment = experiment.dataset.strict, _relaxed(experiment)
    folders = list_training_folders(experiment) if experiment.dataset.train_folders else ()
    train, pairs = _train_part(folders), _pairs(experiment)
    parts = [*([train] if train else []), *(part for pair in pairs for part in pair)]
    if not parts:
        raise InputError("neither dataset.train_dataset_dir nor a test folder is set: there is no data to check.")
    scans = _scan_all(parts)
    held_out: tuple[Subset, ...] = ()
    findings = [*find_unreadable(scan for scans_of_subset in scans for scan in scans_of_subset)]
    findings += [finding for part in parts for finding in find_unparsed_names(part, strict)]
    if train:
        held_out, faults = _split(experiment, folders)
        findings += [*find_undersampled(train), *faults, *_leaks(train, pairs)]
    findings += [finding for pair in pairs for finding in find_unmatched_queries(*pair)]
    findings += find_duplicates(list(zip(parts, scans, strict=True)))
    for part, own in zip(parts, scans, strict=True):
        findings += find_small(part, own, experiment.model.input_height, experiment.model.input_width)
    if sheet:
        findings += _draw(scans[0] if train else scans[1], sheet)
    return Report(tuple(_count(part) for part in (*parts, *held_out)), tuple(dict.fromkeys(findings)))


def _relaxed(experiment: Experiment) -> Experiment:
    """The same without `dataset.strict`, which would stop at the first folder with a bad name."""
    dataset = experiment.dataset.model_copy(update={"strict": False})
    return experiment.model_copy(update={"dataset": dataset})


def _train_part(folders: Sequence[ImageFolder]) -> Subset | None:
    if not folders:
        return None
    records = tuple(record for folder in folders for record in folder.records)
    return Subset(TRAIN, TRAIN, records, tuple(name for folder in folders for name in folder.unparsed_names))


def _pairs(experiment: Experiment) -> list[Pair]:
    """Query and gallery of the test, of a validation folder, and of each extra test."""
    dataset = experiment.dataset
    test = (dataset.query_dataset_dir, dataset.test_dataset_dir)
    validation = validation_folders(experiment)
    wanted = [("", *test)] if any(test) else []
    wanted += [(f"{VALIDATION} ", *validation)] if validation and validation != test else []
    wanted += [(f"{extra.name} ", extra.query_dataset_dir, extra.test_dataset_dir) for extra in dataset.extra_tests]
    if len({label for label, *_ in wanted}) < len(wanted):
        raise InputError(f"dataset.extra_tests: a name stands twice or is {VALIDATION!r}: give each test its own name.")
    return [_pair(*one) for one in wanted]


def _pair(label: str, query: str | None, gallery: str | None) -> Pair:
    if not query or not gallery:
        key = "test_dataset_dir" if query else "query_dataset_dir"
        raise InputError(f"dataset.{key} is not set, and a test needs both folders: give it, or remove the other.")
    folders = (("query", read_image_folder(query)), ("gallery", read_image_folder(gallery)))
    people = label.strip() or TEST
    first, second = (
        Subset(f"{label}{name}", people, folder.records, folder.unparsed_names) for name, folder in folders
    )
    return first, second


def _scan_all(parts: Sequence[Subset]) -> list[list[ImageScan]]:
    """Scans of each part; a file that stands in two parts is read once."""
    records = {record.path: record for part in parts for record in part.records}
    scans = {seen.record.path: seen for seen in scan_images(list(records.values()))}
    return [[replace(scans[record.path], record=record) for record in part.records] for part in parts]


def _split(experiment: Experiment, folders: tuple[ImageFolder, ...]) -> tuple[tuple[Subset, ...], list[Finding]]:
    """What is held out, and why split or batches cannot be made."""
    dataset = experiment.dataset
    held_out: tuple[Subset, ...] = ()
    try:
        split = load_split(experiment, folders)
        if has_validation_split(experiment):
            parts = (("query", split.query), ("gallery", split.gallery))
            held_out = tuple(Subset(f"{VALIDATION} {name}", TRAIN, records) for name, records in parts)
        IdentitySampler(class_labels(split.train)[0], dataset.batch_size, dataset.num_instances, 0)
    except InputError as error:
        return held_out, [Finding("error", str(error))]
    return held_out, []


def _leaks(train: Subset, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Identities that are trained on and tested; an extra test counts if it lies beside a training folder."""
    known = [record for record in train.records if record.identity > 0]
    for query, gallery in pairs:
        tested = [*query.records, *gallery.records]
        own = known if query.identity_group in (TEST, VALIDATION) else select_same_data_set(known, tested)
        if shared := count_shared_identities(own, tested):
            yield Finding(
                "error",
                f"{shared} identities are in train and in {query.name} or {gallery.name}: the score is worth nothing; "
                "remove them from one of the two.",
            )


def _draw(scans: Sequence[ImageScan], sheet: Path) -> Iterator[Finding]:
    records = [seen.record for seen in scans if not seen.error and seen.record.identity > 0]
    if records:
        draw_contact_sheet(records, sheet)
    else:
        yield Finding("note", f"the contact sheet {sheet} is not written: no image can be shown.")


def _count(part: Subset) -> SubsetCounts:
    records = part.records
    return SubsetCounts(
        part.name,
        len(records),
        len({record.identity for record in records if record.identity > 0}),
        len({record.camera for record in records}),
        sum(record.identity < 0 for record in records),
        sum(record.identity == 0 for record in records),
        len(part.unparsed_names),
    )
