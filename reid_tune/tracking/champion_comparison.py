"""Verdict about a version: one comparison of its recipe with that of the champion, in the sweep that registers it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import Difference
from reid_tune.tables import format_count

__all__ = [
    "COMPARED_TAG",
    "COMPARISON_TAG",
    "Verdict",
    "comparison_count",
    "explain_comparisons",
    "judge",
    "parse_verdict",
]

COMPARISON_TAG = "reid_tune.comparison"  # of a version: comparison by the sweep that registered it
COMPARED_TAG = "reid_tune.compared"  # of a champion, with the number of each version that was compared with it
_FALSE_POSITIVES = 0.025  # of one comparison: one side of a 95 % interval


@dataclass(frozen=True)
class Verdict:
    """Decision whether a version may have an alias.

    Attributes:
        against: Version that has the alias; None if no other version has it.
        is_accepted: Whether the new version may have it.
        reason: Explanation of the decision.
        difference: Score of the new recipe minus that of the other one; None without paired repeats.
    """

    against: int | None = None
    is_accepted: bool = True
    reason: str = "no other version had the alias"
    difference: Difference | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for a log or a tag."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Verdict":
        """Return the verdict with the fields that `as_dict` has returned."""
        difference = fields["difference"]
        return cls(**{**fields, "difference": Difference(**difference) if difference else None})


def judge(comparison: Verdict, incumbent: int | None) -> Verdict:
    """Return whether a version may have an alias.

    Args:
        comparison: Comparison by the sweep that registered the version.
        incumbent: Version that has the alias now, None if no other one has it.
    """
    if incumbent is None:
        return Verdict()
    if comparison.against == incumbent:
        return comparison
    compared = f"version {comparison.against}" if comparison.against is not None else "no version"
    note = f" ({comparison.reason})" if comparison.against is None and not comparison.is_accepted else ""
    return Verdict(
        incumbent,
        False,
        f"version {incumbent} has the alias, but the sweep compared its winner with {compared}{note}: repeat the "
        "sweep with --from confirm",
    )


def parse_verdict(model: str, tags: Mapping[str, str], tag: str) -> Verdict:
    """Return the verdict in a tag of a version of a model, the default one without the tag.

    Raises:
        InputError: the tag was changed.
    """
    if tag not in tags:
        return Verdict()
    text = tags[tag]
    try:
        match json.loads(text):
            case {"against": int() | None, "is_accepted": bool(), "reason": str(), "difference": difference} as fields:
                if difference is None or all(map(_is_number_or_none, difference.values())):
                    return Verdict.from_dict(fields)
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise InputError(
        f"the tag {tag} of a version of {model} has been changed, and is not a comparison of two versions: "
        f"{text[:80]!r}: correct or delete it."
    )


def _is_number_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def comparison_count(tags: Mapping[str, str]) -> int:
    """Return the number of versions that were compared with a version, by its tags."""
    return sum(key.startswith(f"{COMPARED_TAG}.") for key in tags)


def explain_comparisons(version: int, count: int) -> str:
    """Return what the number of comparisons with a version means, in one sentence; empty without any."""
    if not count:
        return ""
    chance = 100 * (1 - (1 - _FALSE_POSITIVES) ** count)
    return (
        f"{format_count(count, 'version')} compared with version {version} so far: if none was better, the chance "
        f"that at least one would be promoted by luck is up to {chance:.0f} %."
    )
