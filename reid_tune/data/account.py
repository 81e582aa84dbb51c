"""Account of a part of a data set: files seen = files used + files left out, by reason."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reid_tune.data.left_out import count_left_out, left_out_phrase
from reid_tune.data.listing import Listing, Reason
from reid_tune.data.records import ImageFolder
from reid_tune.identities import kind_of

__all__ = [
    "FileAccount",
    "Role",
    "account_for",
    "account_for_listing",
    "accounts_as_dict",
    "accounts_from_dict",
    "describe_accounts",
    "is_used",
]

Role = Literal["train", "query", "gallery"]
_LEFT_OUT_KINDS: Mapping[Role, Mapping[str, Reason]] = {
    "train": {"junk": Reason.JUNK, "distractor": Reason.DISTRACTOR},
    "query": {"junk": Reason.JUNK},
    "gallery": {"junk": Reason.JUNK},
}


@dataclass(frozen=True, slots=True)
class FileAccount:
    """Account of one part of a data set.

    Attributes:
        files: Number of files seen: those of the folders, and the images in their sub-folders.
        used: Number of files that are used.
        left_out: Number of the other files by reason, without zeros.
        examples: Name of the first file of a reason.
    """

    files: int
    used: int
    left_out: Mapping[Reason, int] = field(default_factory=dict)
    examples: Mapping[Reason, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the account in one line, such as `40 files = 37 used + 3 of junk (identity -1)`."""
        return " + ".join([f"{self.files:,} files = {self.used:,} used", *self._phrases(self.left_out)])

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON and the event log."""
        return {
            "files": self.files,
            "used": self.used,
            "left_out": {reason.value: count for reason, count in self.left_out.items()},
        }

    def describe(self, name: str, reasons: Collection[Reason] = tuple(Reason)) -> str | None:
        """Return what is left out for some reasons, such as `3 of 40 files of train (3 of junk (identity -1))`.

        Args:
            name: Name of the part of the data set.
            reasons: The reasons.

        Returns:
            None if nothing is left out for these reasons.
        """
        left_out = {reason: count for reason, count in self.left_out.items() if reason in reasons}
        phrases = self._phrases(left_out)
        return (
            f"{sum(left_out.values()):,} of {self.files:,} files of {name} ({'; '.join(phrases)})" if phrases else None
        )

    def _phrases(self, left_out: Mapping[Reason, int]) -> list[str]:
        return [left_out_phrase(reason, count, self.examples.get(reason)) for reason, count in left_out.items()]


def is_used(identity: int, role: Role) -> bool:
    """Whether images of an identity are used in a role, so are not left out as junk or distractors."""
    return kind_of(identity) not in _LEFT_OUT_KINDS[role]


def account_for(folders: Sequence[ImageFolder], role: Role, further: Mapping[Reason, int] | None = None) -> FileAccount:
    """Return the account of folders that are used together.

    Args:
        folders: The folders.
        role: Use of the images, which decides whether junk and distractors are left out.
        further: Numbers of images that are left out of the used ones for another reason.
    """
    counts: Counter[Reason] = Counter()
    examples: dict[Reason, str] = {}
    records = [record for folder in folders for record in folder.records]
    for folder in folders:
        counts.update(count_left_out(folder.path, folder.left_out))
        examples = {reason: names[0] for reason, names in folder.left_out.items()} | examples
    files = len(records) + counts.total()
    kinds = _LEFT_OUT_KINDS[role]
    counts.update(kinds[kind] for record in records if (kind := kind_of(record.identity)) in kinds)
    counts.update(further or {})
    left_out = {reason: counts[reason] for reason in Reason if counts[reason]}
    return FileAccount(files, files - counts.total(), left_out, examples)


def account_for_listing(listing: Listing) -> FileAccount:
    """Return the account of a folder whose images are used whatever their names say."""
    left_out = count_left_out(listing.path, listing.left_out)
    examples = {reason: names[0] for reason, names in listing.left_out.items()}
    return FileAccount(len(listing.images) + sum(left_out.values()), len(listing.images), left_out, examples)


def accounts_as_dict(accounts: Mapping[str, FileAccount]) -> dict[str, Any]:
    """Return the numbers of accounts for JSON and the event log by the name of the part."""
    return {name: account.as_dict() for name, account in accounts.items()}


def describe_accounts(accounts: Mapping[str, FileAccount], reasons: Collection[Reason] = tuple(Reason)) -> str | None:
    """Return one line about all files that are left out for some reasons, None if there are none.

    Args:
        accounts: Accounts by the name of the part.
        reasons: The reasons.
    """
    parts = filter(None, (account.describe(name, reasons) for name, account in accounts.items()))
    line = "; ".join(parts)
    return f"left out: {line}" if line else None


def accounts_from_dict(content: Mapping[str, Mapping[str, Any]]) -> dict[str, FileAccount]:
    """Return the accounts of `accounts_as_dict`."""
    return {
        name: FileAccount(
            account["files"],
            account["used"],
            {Reason(reason): count for reason, count in account["left_out"].items()},
        )
        for name, account in content.items()
    }
