"""The task `check-data`: counts of a spec's data sets, and findings about their quality."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.data.account import FileAccount, Role, describe_accounts, is_used
from reid_tune.data.contact_sheet import draw_contact_sheet, require_picture_name
from reid_tune.data.data_quality import (
    Finding,
    Subset,
    find_distractors,
    find_left_out,
    find_undersampled,
    find_unmatched_queries,
)
from reid_tune.data.image_quality import find_constant, find_converted, find_duplicates, find_small, find_unreadable
from reid_tune.data.left_out import abbreviate
from reid_tune.data.listing import Reason
from reid_tune.data.records import ImageFolder, ImageRecord, class_labels, read_image_folder
from reid_tune.data.sampler import IdentitySampler
from reid_tune.data.scan import ImageScan, scan_images
from reid_tune.errors import InputError
from reid_tune.evaluation.unmatched import describe_distractor_queries
from reid_tune.files import display_name
from reid_tune.identities import is_distractor, is_person
from reid_tune.training.data_split import (
    count_shared_identities,
    has_validation_split,
    list_training_folders,
    load_split,
    require_rankable_images,
    select_same_data_set,
    validation_folders,
)

__all__ = ["Report", "SubsetCounts", "check_data"]

Pair = tuple[Subset, Subset]
TRAIN, TEST, VALIDATION = "train", "the test", "validation"
_HEADS = {reason: f"left out: {reason.value.replace('_', ' ')}" for reason in Reason}


@dataclass(frozen=True)
class SubsetCounts:
    """Counts of one subset.

    Attributes:
        name: Name of the subset.
        account: Account of its files.
        identities: Number of identities, without junk and distractors.
        cameras: Number of cameras.
        distractors: Number of distractors that are used.
    """

    name: str
    account: FileAccount
    identities: int
    cameras: int
    distractors: int

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        account = self.account.as_dict()
        left_out = account.pop("left_out")
        counts = {"identities": self.identities, "cameras": self.cameras, "distractors": self.distractors}
        return account | counts | {"left_out": left_out}


@dataclass(frozen=True)
class Report:
    """Counts of all subsets, and all findings."""

    subsets: tuple[SubsetCounts, ...]
    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        """Whether a finding makes training fail or a score meaningless."""
        return any(finding.severity == "error" for finding in self.findings)

    def rows(self) -> dict[str, dict[str, int]]:
        """Return the counts of each subset by its name, for a table; and the numbers of files left out by reason.

        A reason has a column if a subset has such a file.
        """
        reasons = [reason for reason in Reason if any(reason in subset.account.left_out for subset in self.subsets)]
        rows = {}
        for subset in self.subsets:
            counts = subset.as_dict()
            left_out = counts.pop("left_out")
            rows[subset.name] = counts | {_HEADS[reason]: left_out.get(reason.value, 0) for reason in reasons}
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "subsets": {subset.name: subset.as_dict() for subset in self.subsets},
            "findings": [asdict(finding) for finding in self.findings],
            "has_errors": self.has_errors,
        }


def check_data(experiment: Experiment, sheet: Path | None = None) -> Report:
    """Check every image of a spec: training, query, gallery, validation and extra tests, as far as they are set.

    Args:
        experiment: The spec.
        sheet: A .png or .jpg file for a contact sheet of the training images, or of the gallery without any.

    Raises:
        InputError: no folder is set, a folder cannot be read or has no image, or the sheet cannot be written.
    """
    if sheet:
        require_picture_name(sheet)
    strict, experiment = experiment.dataset.strict, _without_strict(experiment)
    folders = list_training_folders(experiment) if experiment.dataset.train_folders else ()
    train, pairs = Subset(TRAIN, TRAIN, "train", folders) if folders else None, _test_pairs(experiment)
    subsets = [*([train] if train else []), *(subset for pair in pairs for subset in pair)]
    if not subsets:
        raise InputError("neither dataset.train_dataset_dir nor a test folder is set: there is no data to check.")
    scans = _scan_all(subsets)
    held_out: list[Pair] = []
    findings = [finding for pair in zip(subsets, scans, strict=True) for finding in find_unreadable(*pair)]
    findings += [finding for subset in subsets for finding in find_left_out(subset, strict)]
    if train:
        held_out, split_findings = _check_split(experiment, folders)
        findings += [*find_distractors(train), *find_undersampled(train), *split_findings, *_find_leaks(train, pairs)]
    for query, gallery in [*pairs, *held_out]:
        findings += _check_pair(query, gallery)
    findings += find_duplicates(list(zip(subsets, scans, strict=True)))
    for subset, subset_scans in zip(subsets, scans, strict=True):
        findings += [*find_constant(subset, subset_scans), *find_converted(subset, subset_scans)]
        findings += find_small(subset, subset_scans, experiment.model.input_height, experiment.model.input_width)
    if sheet:
        findings += _draw_sheet(scans[0] if train else scans[1], sheet)
    counts = [_count(subset, subset_scans) for subset, subset_scans in zip(subsets, scans, strict=True)]
    counts += [_count(subset) for pair in held_out for subset in pair]
    return Report(tuple(counts), tuple(dict.fromkeys(findings)))


def _without_strict(experiment: Experiment) -> Experiment:
    """Return the spec without `dataset.strict`, which would stop at the first folder with a bad name."""
    dataset = experiment.dataset.model_copy(update={"strict": False})
    return experiment.model_copy(update={"dataset": dataset})


def _test_pairs(experiment: Experiment) -> list[Pair]:
    """Return query and gallery of the test, of a validation folder, and of each extra test."""
    dataset = experiment.dataset
    test = (dataset.query_dataset_dir, dataset.test_dataset_dir)
    validation = validation_folders(experiment)
    folders = [("", *test)] if any(test) else []
    folders += [(f"{VALIDATION} ", *validation)] if validation and validation != test else []
    folders += [(f"{extra.name} ", extra.query_dataset_dir, extra.test_dataset_dir) for extra in dataset.extra_tests]
    if len({label for label, *_ in folders}) < len(folders):
        raise InputError(
            f"dataset.extra_tests: a name occurs twice or is {VALIDATION!r}: give each test a different name."
        )
    return [_read_pair(label, query, gallery) for label, query, gallery in folders]


def _read_pair(label: str, query: str | None, gallery: str | None) -> Pair:
    if not query or not gallery:
        key = "test_dataset_dir" if query else "query_dataset_dir"
        raise InputError(f"dataset.{key} is not set, and a test needs both folders: give it, or remove the other.")
    identity_group = label.strip() or TEST
    return (
        Subset(f"{label}query", identity_group, "query", (read_image_folder(query),)),
        Subset(f"{label}gallery", identity_group, "gallery", (read_image_folder(gallery),)),
    )


def _scan_all(subsets: Sequence[Subset]) -> list[list[ImageScan]]:
    """Return the scans of each subset; a file that is in two subsets is read once."""
    records = {record.path: record for subset in subsets for record in subset.records}
    scans = {scan.record.path: scan for scan in scan_images(list(records.values()))}
    return [[replace(scans[record.path], record=record) for record in subset.records] for subset in subsets]


def _check_split(experiment: Experiment, folders: tuple[ImageFolder, ...]) -> tuple[list[Pair], list[Finding]]:
    """Return the held-out query and gallery, and findings about a split or batches that cannot be made."""
    dataset = experiment.dataset
    held_out: list[Pair] = []
    findings = []
    try:
        split = load_split(experiment, folders)
        if has_validation_split(experiment):
            held_out.append((_held_out("query", split.query), _held_out("gallery", split.gallery)))
        if line := describe_accounts({TRAIN: split.accounts["train"]}, (Reason.UNLISTED,)):
            findings.append(Finding("note", f"{line}."))
        IdentitySampler(class_labels(split.train)[0], dataset.batch_size, dataset.num_instances, 0)
    except InputError as error:
        findings.append(Finding("error", str(error)))
    return held_out, findings


def _held_out(role: Role, records: tuple[ImageRecord, ...]) -> Subset:
    return Subset(f"{VALIDATION} {role}", TRAIN, role, (ImageFolder(Path(), records),))


def _check_pair(query: Subset, gallery: Subset) -> Iterator[Finding]:
    """Yield findings about queries that are not scored as their user may think, and about a score of no meaning."""
    if line := describe_distractor_queries(record.identity for record in query.records):
        names = [record.path.name for record in query.records if is_distractor(record.identity)]
        yield Finding("note", f"{query.name}: {line} ({abbreviate(names)}).")
    yield from find_unmatched_queries(query, gallery)
    try:
        require_rankable_images(query.records, gallery.records)
    except InputError as error:
        yield Finding("error", f"{query.name} and {gallery.name}: {error}")


def _find_leaks(train: Subset, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Yield identities that are trained on and tested; an extra test counts if it is next to a training folder."""
    train_records = [record for record in train.records if is_person(record.identity)]
    for query, gallery in pairs:
        test_records = [*query.records, *gallery.records]
        is_own = query.identity_group in (TEST, VALIDATION)
        comparable = train_records if is_own else select_same_data_set(train_records, test_records)
        if shared := count_shared_identities(comparable, test_records):
            yield Finding(
                "error",
                f"{shared} identities are in train and in {query.name} or {gallery.name}: the score would be "
                "meaningless; remove them from one of the two.",
            )


def _draw_sheet(scans: Sequence[ImageScan], sheet: Path) -> Iterator[Finding]:
    records = [scan.record for scan in scans if not scan.error and is_person(scan.record.identity)]
    if records:
        draw_contact_sheet(records, sheet)
    else:
        yield Finding(
            "note",
            f"the contact sheet {display_name(sheet)} is not written: there is no readable image of an identity.",
        )


def _count(subset: Subset, scans: Sequence[ImageScan] = ()) -> SubsetCounts:
    account, records = subset.account(scans), subset.records
    return SubsetCounts(
        subset.name,
        account,
        len({record.identity for record in records if is_person(record.identity)}),
        len({record.camera for record in records}),
        sum(is_distractor(record.identity) and is_used(record.identity, subset.role) for record in records),
    )
