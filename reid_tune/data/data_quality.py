"""Findings about the quality of a data set."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reid_tune.data.records import ImageRecord
from reid_tune.data.scan import ImageScan

__all__ = [
    "Finding",
    "Subset",
    "find_duplicates",
    "find_small",
    "find_undersampled",
    "find_unmatched_queries",
    "find_unparsed_names",
    "find_unreadable",
]

Severity = Literal["error", "note"]


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        severity: Severity: `error` if training fails or a score is meaningless, otherwise `note`.
        sentence: Message for the user.
    """

    severity: Severity
    sentence: str


@dataclass(frozen=True)
class Subset:
    """One part of a data set.

    Attributes:
        name: Name in messages.
        identity_group: Name of the subsets that share their identity numbers with this one.
        records: The images.
        unparsed_names: Names of image files that do not parse.
    """

    name: str
    identity_group: str
    records: tuple[ImageRecord, ...]
    unparsed_names: tuple[str, ...] = ()


def find_unparsed_names(subset: Subset, strict: bool) -> Iterator[Finding]:
    """Find image files whose names do not parse; they are an error if `strict` (`dataset.strict`)."""
    if subset.unparsed_names:
        advice = "dataset.strict does not allow this: rename or remove them" if strict else "rename them to use them"
        yield Finding(
            "error" if strict else "note",
            f"{len(subset.unparsed_names)} image file(s) of {subset.name} are skipped, as their names do not parse "
            f"({_abbreviate(subset.unparsed_names)}); {advice}.",
        )


def find_undersampled(subset: Subset) -> Iterator[Finding]:
    """Find training identities with a single image, and with a single camera."""
    images: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    for record in subset.records:
        if record.identity > 0:
            images[record.identity].append(record)
    single_image = [records for records in images.values() if len(records) == 1]
    single_camera = [records for records in images.values() if len({record.camera for record in records}) == 1]
    for identities, problem in (
        (single_image, "have a single image, so there are no pairs to compare"),
        (single_camera, "are seen by a single camera, so nothing is learned across cameras"),
    ):
        if identities:
            names = _abbreviate([records[0].path.name for records in identities])
            count = f"{len(identities)} of {len(images)} identities of {subset.name}"
            yield Finding("note", f"{count} {problem} ({names}).")


def find_unmatched_queries(query: Subset, gallery: Subset) -> Iterator[Finding]:
    """Find queries without a gallery image of their identity and another camera."""
    cameras: defaultdict[int, set[int]] = defaultdict(set)
    for record in gallery.records:
        if record.identity > 0:
            cameras[record.identity].add(record.camera)
    unmatched = [record for record in query.records if not cameras[record.identity] - {record.camera}]
    if unmatched:
        is_all = len(unmatched) == len(query.records)
        yield Finding(
            "error" if is_all else "note",
            f"{len(unmatched)} of {len(query.records)} images of {query.name} have no match, an image of their "
            f"identity and another camera, in {gallery.name} ({_abbreviate([r.path.name for r in unmatched])}); "
            + ("there is nothing to score." if is_all else "the score ignores them."),
        )


def find_unreadable(scans: Iterable[ImageScan]) -> Iterator[Finding]:
    """Find files that cannot be decoded."""
    for scan in scans:
        if scan.error:
            path = scan.record.path
            yield Finding("error", f"{path} cannot be read: {scan.error}; replace or remove the file.")


def find_small(subset: Subset, scans: Sequence[ImageScan], height: int, width: int) -> Iterator[Finding]:
    """Find images less than half as high or wide as the input, given in pixels."""
    small = [scan for scan in scans if not scan.error and (2 * scan.height < height or 2 * scan.width < width)]
    if small:
        smallest = min(small, key=lambda scan: scan.width * scan.height)
        yield Finding(
            "note",
            f"{len(small)} of {len(scans)} images of {subset.name} are less than half as wide or high as the input of "
            f"{width} x {height}; the smallest is {smallest.record.path.name}, {smallest.width} x {smallest.height}.",
        )


def find_duplicates(subsets: Sequence[tuple[Subset, Sequence[ImageScan]]]) -> Iterator[Finding]:
    """Find files with equal content: in training and another subset, under two identities, or listed twice."""
    copies: defaultdict[str, list[tuple[Subset, ImageRecord]]] = defaultdict(list)
    for subset, scans in subsets:
        for scan in scans:
            if not scan.error:
                copies[scan.digest].append((subset, scan.record))
    groups_of: defaultdict[tuple[Severity, str], list[list[ImageRecord]]] = defaultdict(list)
    for group in copies.values():
        if len(group) > 1:
            for severity, problem, records in _classify(group):
                groups_of[severity, problem].append(records)
    for (severity, problem), groups in groups_of.items():
        first, second = groups[0][:2]
        yield Finding(severity, f"{len(groups)} image(s) {problem}, for example {first.path} and {second.path}.")


def _classify(group: Sequence[tuple[Subset, ImageRecord]]) -> Iterator[tuple[Severity, str, list[ImageRecord]]]:
    """Yield severity, problem and example files for each problem of files with equal content."""
    by_subset: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    by_identity_group: defaultdict[str, dict[int, ImageRecord]] = defaultdict(dict)
    for subset, record in group:
        by_subset[subset.name].append(record)
        if record.identity > 0:
            by_identity_group[subset.identity_group].setdefault(record.identity, record)
    for name, identities in by_identity_group.items():
        if len(identities) > 1:
            yield "error", f"of {name} have two identities, of which one is wrong", [*identities.values()]
    first, *others = by_subset
    for name in others:
        records = [by_subset[first][0], by_subset[name][0]]
        if first == "train":
            yield "error", f"of train are also in {name}, which inflates its score", records
        else:
            yield "note", f"of {first} are also in {name}", records
    for name, records in by_subset.items():
        if len(records) > 1 and len({record.identity for record in records}) == 1:
            yield "note", f"of {name} exist more than once", records


def _abbreviate(names: Sequence[str]) -> str:
    """Return the first three names, and the number of the others."""
    suffix = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + suffix
