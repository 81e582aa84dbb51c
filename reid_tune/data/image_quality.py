"""Findings about the content of images: unreadable, small, constant or equal images, and forms that are converted."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from reid_tune.data.data_quality import Finding, Severity, Subset
from reid_tune.data.image_file import ImageTraits
from reid_tune.data.left_out import abbreviate
from reid_tune.data.records import ImageRecord
from reid_tune.data.scan import ImageScan
from reid_tune.files import display_name
from reid_tune.identities import is_person

__all__ = ["find_constant", "find_converted", "find_duplicates", "find_small", "find_unreadable"]

Scans = Sequence[ImageScan]

_LISTED = 20  # unreadable files with the same problem, each with a line

# What the decoder does to an image, and what to do about it.
_CONVERSIONS: tuple[tuple[Callable[[ImageTraits], bool], str], ...] = (
    (
        lambda traits: traits.is_turned,
        "are turned by their EXIF orientation; a program that ignores EXIF sees them lying: save them upright",
    ),
    (
        lambda traits: traits.has_16_bits,
        "have 16 bits per channel, of which the upper 8 are used; check that they are not nearly black",
    ),
    (
        lambda traits: traits.has_transparency,
        "have transparency, which is ignored: the colours below it are used; save them without it",
    ),
    (lambda traits: traits.has_frames, "have several images in a file, of which the first is used"),
)


def find_unreadable(subset: Subset, scans: Scans) -> Iterator[Finding]:
    """Find files that cannot be decoded; many files with the same problem are one finding."""
    groups: defaultdict[tuple[str, str], list[ImageScan]] = defaultdict(list)
    for scan in scans:
        if scan.error:
            groups[scan.error, scan.remedy].append(scan)
    for (error, remedy), group in groups.items():
        if len(group) > _LISTED:
            names = abbreviate([scan.record.path.name for scan in group])
            problem = f"{len(group)} of {len(scans)} images of {subset.name} cannot be read ({names})"
            yield Finding("error", f"{problem}: {error}; {remedy}.")
            continue
        for scan in group:
            yield Finding("error", f"{display_name(scan.record.path)} cannot be read: {error}; {remedy}.")


def find_small(subset: Subset, scans: Scans, height: int, width: int) -> Iterator[Finding]:
    """Find images less than half as high or wide as the input, given in pixels."""
    small = [scan for scan in scans if not scan.error and (2 * scan.height < height or 2 * scan.width < width)]
    if small:
        smallest = min(small, key=lambda scan: scan.width * scan.height)
        yield Finding(
            "note",
            f"{len(small)} of {len(scans)} images of {subset.name} are less than half as wide or high as the input of "
            f"{width} x {height}; the smallest is {display_name(smallest.record.path.name)}, {smallest.width} x "
            f"{smallest.height}.",
        )


def find_constant(subset: Subset, scans: Scans) -> Iterator[Finding]:
    """Find images of a single colour; an error if no other image is left."""
    constant, readable = [scan for scan in scans if scan.is_constant], [scan for scan in scans if not scan.error]
    if constant:
        is_all = len(constant) == len(readable)
        names = abbreviate([scan.record.path.name for scan in constant])
        yield Finding(
            "error" if is_all else "note",
            f"{len(constant)} of {len(readable)} images of {subset.name} are of a single colour ({names}); "
            + ("there is nothing to tell apart." if is_all else "they show nobody: remove them."),
        )


def find_converted(subset: Subset, scans: Scans) -> Iterator[Finding]:
    """Find images whose pixels are not used as they are in the file: turned, of 16 bits, transparent, animated."""
    for is_converted, problem in _CONVERSIONS:
        names = [scan.record.path.name for scan in scans if scan.traits and is_converted(scan.traits)]
        if names:
            yield Finding(
                "note", f"{len(names)} of {len(scans)} images of {subset.name} {problem} ({abbreviate(names)})."
            )


def find_duplicates(subsets: Sequence[tuple[Subset, Scans]]) -> Iterator[Finding]:
    """Find images of equal pixels: in training and another subset, under two identities, or listed twice.

    Images of a single colour are not compared, see `find_constant`.
    """
    copies: defaultdict[str, list[tuple[Subset, ImageRecord]]] = defaultdict(list)
    for subset, scans in subsets:
        for scan in scans:
            if not scan.error and not scan.is_constant:
                copies[scan.digest].append((subset, scan.record))
    groups_of: defaultdict[tuple[Severity, str], list[list[ImageRecord]]] = defaultdict(list)
    for group in copies.values():
        if len(group) > 1:
            for severity, problem, records in _classify(group):
                groups_of[severity, problem].append(records)
    for (severity, problem), groups in groups_of.items():
        first, second = (display_name(record.path) for record in groups[0][:2])
        yield Finding(severity, f"{len(groups)} image(s) {problem}, for example {first} and {second}.")


def _classify(group: Sequence[tuple[Subset, ImageRecord]]) -> Iterator[tuple[Severity, str, list[ImageRecord]]]:
    """Yield severity, problem and example files for each problem of images with equal pixels."""
    by_subset: defaultdict[str, list[ImageRecord]] = defaultdict(list)
    by_identity_group: defaultdict[str, dict[int, ImageRecord]] = defaultdict(dict)
    for subset, record in group:
        by_subset[subset.name].append(record)
        if is_person(record.identity):
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
