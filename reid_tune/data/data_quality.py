"""Findings about the files, names and identities of a data set."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reid_tune.data.account import FileAccount, Role, account_for, is_used
from reid_tune.data.left_out import abbreviate, count_left_out, reason_phrase, remedy
from reid_tune.data.listing import POSSIBLE_IMAGES, Reason
from reid_tune.data.records import ImageFolder, ImageRecord
from reid_tune.data.scan import ImageScan
from reid_tune.files import display_name
from reid_tune.identities import is_distractor, is_person, unmatched_queries

__all__ = [
    "Finding",
    "Subset",
    "find_distractors",
    "find_left_out",
    "find_undersampled",
    "find_unmatched_queries",
]

Severity = Literal["error", "note"]
# If identity 0 has at most so many times the images of the largest other identity, it may be an identity, too.
_ZERO_BASED_RATIO = 3


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
        role: Use of the images.
        folders: Listings of its folders.
    """

    name: str
    identity_group: str
    role: Role
    folders: tuple[ImageFolder, ...]

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """Images of all folders with names that parse."""
        return tuple(record for folder in self.folders for record in folder.records)

    def account(self, scans: Sequence[ImageScan] = ()) -> FileAccount:
        """Return the account of the files.

        Args:
            scans: Scans of the records.
        """
        unreadable = sum(scan.error is not None and is_used(scan.record.identity, self.role) for scan in scans)
        return account_for(self.folders, self.role, {Reason.UNREADABLE: unreadable})


def find_left_out(subset: Subset, strict: bool) -> Iterator[Finding]:
    """Find files that may be images and are left out; they are an error if `strict` (`dataset.strict`)."""
    for folder in subset.folders:
        for reason, count in count_left_out(folder.path, folder.left_out).items():
            if reason in POSSIBLE_IMAGES:
                names = [f"{name}/" if reason is Reason.SUBFOLDER else name for name in folder.left_out[reason]]
                files = f"{count:,} {'file' if count == 1 else 'files'} of {subset.name}"
                yield Finding(
                    "error" if strict else "note",
                    f"{files} {'is' if count == 1 else 'are'} left out, {reason_phrase(reason, count)} "
                    f"({abbreviate(names)} in {display_name(folder.path)})"
                    f"{', which dataset.strict does not allow' if strict else ''}: "
                    f"{remedy(folder.path, folder.left_out, reason)}.",
                )


def find_distractors(subset: Subset) -> Iterator[Finding]:
    """Find images of identity 0 among the training images, which are left out as distractors."""
    records = [record for record in subset.records if is_distractor(record.identity)]
    if subset.role != "train" or not records:
        return
    images: defaultdict[int, int] = defaultdict(int)
    for record in subset.records:
        images[record.identity] += 1
    unused = max(images) + 1
    largest = max((count for identity, count in images.items() if is_person(identity)), default=0)
    guess = ""
    if len(records) <= _ZERO_BASED_RATIO * largest:
        guess = "; if identities are numbered from 0, give this one an unused number"
        guess += f" such as {unused:04d}" if len(subset.folders) == 1 else ""
    yield Finding(
        "note",
        f"{len(records)} images of {subset.name} have identity 0, which marks distractors, and are left out of "
        f"training ({abbreviate([record.path.name for record in records])}){guess}.",
    )


def find_undersampled(subset: Subset) -> Iterator[Finding]:
    """Find training identities with a single image, and with a single camera."""
    images: defaultdict[int, list[ImageRecord]] = defaultdict(list)
    for record in subset.records:
        if is_person(record.identity):
            images[record.identity].append(record)
    single_image = [records for records in images.values() if len(records) == 1]
    single_camera = [records for records in images.values() if len({record.camera for record in records}) == 1]
    for identities, problem in (
        (single_image, "have a single image, so there are no pairs to compare"),
        (single_camera, "are seen by a single camera, so nothing is learned across cameras"),
    ):
        if identities:
            names = abbreviate([records[0].path.name for records in identities])
            count = f"{len(identities)} of {len(images)} identities of {subset.name}"
            yield Finding("note", f"{count} {problem} ({names}).")


def find_unmatched_queries(query: Subset, gallery: Subset) -> Iterator[Finding]:
    """Find queries without a gallery image of their identity and another camera."""
    queries, others = ([(record.identity, record.camera) for record in subset.records] for subset in (query, gallery))
    unmatched = sorted(index for indices in unmatched_queries(queries, others) for index in indices)
    if 0 < len(unmatched) < len(queries):  # Otherwise nothing can be ranked, which `require_rankable` explains.
        names = abbreviate([query.records[index].path.name for index in unmatched])
        yield Finding(
            "note",
            f"{len(unmatched)} of {len(queries)} images of {query.name} have no match, an image of their "
            f"identity and another camera, in {gallery.name} ({names}); the score ignores them.",
        )
