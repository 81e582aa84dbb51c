"""What may be wrong with a data set, in sentences."""

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
    "find_unparsed_names",
    "find_small",
    "find_undersampled",
    "find_unmatched_queries",
    "find_unreadable",
]

Severity = Literal["error", "note"]


@dataclass(frozen=True)
class Finding:
    """`error`: training fails, or a score is worth nothing; `note`: to be known."""

    severity: Severity
    sentence: str


@dataclass(frozen=True)
class Subset:
    """One subset: its name in sentences, its crops, names left out; parts of one `people` share their identities."""

    name: str
    people: str
    records: tuple[ImageRecord, ...]
    unparsed_names: tuple[str, ...] = ()


def find_unparsed_names(part: Subset, strict: bool) -> Iterator[Finding]:
    """Image files whose names do not parse; with `strict` the folder is refused."""
    if part.unparsed_names:
        end = "dataset.strict refuses them: rename or remove them" if strict else "rename them if they are wanted"
        yield Finding(
            "error" if strict else "note",
            f"{len(part.unparsed_names)} image file(s) of {part.name} are left out, as their names do not parse "
            f"({_some(part.unparsed_names)}); {end}.",
        )


def find_undersampled(part: Subset) -> Iterator[Finding]:
    """Training identities with one image, and with one camera."""
    images: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    for record in part.records:
        if record.identity > 0:
            images[record.identity].append(record)
    for few, what in (
        ([own for own in images.values() if len(own) == 1], "have one image, so that there is nothing to compare"),
        (
            [own for own in images.values() if len({record.camera for record in own}) == 1],
            "are seen by one camera and teach nothing about another",
        ),
    ):
        if few:
            names = _some([own[0].path.name for own in few])
            yield Finding("note", f"{len(few)} of {len(images)} identities of {part.name} {what} ({names}).")


def find_unmatched_queries(query: Subset, gallery: Subset) -> Iterator[Finding]:
    """Queries without a gallery image of their identity and another camera."""
    cameras: defaultdict[int, set[int]] = defaultdict(set)
    for record in gallery.records:
        if record.identity > 0:
            cameras[record.identity].add(record.camera)
    alone = [record for record in query.records if not cameras[record.identity] - {record.camera}]
    if alone:
        everyone = len(alone) == len(query.records)
        yield Finding(
            "error" if everyone else "note",
            f"{len(alone)} of {len(query.records)} images of {query.name} have no match, an image of their identity "
            f"and another camera, in {gallery.name} ({_some([record.path.name for record in alone])}); "
            + ("there is nothing to score." if everyone else "the score leaves them out."),
        )


def find_unreadable(scans: Iterable[ImageScan]) -> Iterator[Finding]:
    """Each file that cannot be decoded."""
    for scan in scans:
        if scan.fault:
            path = scan.record.path
            yield Finding("error", f"{path} cannot be read: {scan.fault}; replace or remove the file.")


def find_small(part: Subset, scans: Sequence[ImageScan], height: int, width: int) -> Iterator[Finding]:
    """Images less than half as high or wide as the input."""
    few = [scan for scan in scans if not scan.fault and (2 * scan.height < height or 2 * scan.width < width)]
    if few:
        least = min(few, key=lambda scan: scan.width * scan.height)
        yield Finding(
            "note",
            f"{len(few)} of {len(scans)} images of {part.name} are less than half as wide or high as the input of "
            f"{width} x {height}; the smallest is {least.record.path.name}, {least.width} x {least.height}.",
        )


def find_duplicates(parts: Sequence[tuple[Subset, Sequence[ImageScan]]]) -> Iterator[Finding]:
    """Files of equal content: in training and elsewhere, under two identities, or merely twice."""
    copies: defaultdict[str, list[tuple[Subset, ImageRecord]]] = defaultdict(list)
    for part, scans in parts:
        for scan in scans:
            if not scan.fault:
                copies[scan.digest].append((part, scan.record))
    found: defaultdict[tuple[Severity, str], list[list[ImageRecord]]] = defaultdict(list)
    for group in copies.values():
        if len(group) > 1:
            for severity, what, records in _kinds(group):
                found[severity, what].append(records)
    for (severity, what), groups in found.items():
        first, second = groups[0][:2]
        yield Finding(severity, f"{len(groups)} image(s) {what}, for example {first.path} and {second.path}.")


def _kinds(group: Sequence[tuple[Subset, ImageRecord]]) -> Iterator[tuple[Severity, str, list[ImageRecord]]]:
    """What is to be said about files of one content, each time with the files that show it."""
    by_part: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    by_people: defaultdict[str, dict[int, ImageRecord]] = defaultdict(dict)
    for part, record in group:
        by_part[part.name].append(record)
        if record.identity > 0:
            by_people[part.people].setdefault(record.identity, record)
    for people, identities in by_people.items():
        if len(identities) > 1:
            yield "error", f"of {people} stand under two identities, of which one is wrong", [*identities.values()]
    first, *others = by_part
    for name in others:
        records = [by_part[first][0], by_part[name][0]]
        if first == "train":
            yield "error", f"of train are in {name} too, whose score they flatter", records
        else:
            yield "note", f"of {first} are in {name} too", records
    for name, records in by_part.items():
        if len(records) > 1 and len({record.identity for record in records}) == 1:
            yield "note", f"of {name} are there more than once", records


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
