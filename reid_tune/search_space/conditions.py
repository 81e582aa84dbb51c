"""Conditional ranges: which range of a key is searched, by the values of other keys."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reid_tune.search_space.ranges import Range

__all__ = ["Branch", "Parameter", "check_conditions", "sort_by_conditions"]

_MOST_SITUATIONS = 20_000
# A value that no condition names.
_OTHER = object()


@dataclass(frozen=True)
class Branch:
    """One range of a key.

    Attributes:
        name: Optuna's name of it, unlike those of the key's other ranges.
        when: By key the values with which this range is searched; all keys must have one of theirs.
    """

    name: str
    range: Range
    when: Mapping[str, tuple[Any, ...]]

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether a configuration fulfils all conditions."""
        return all(values[key] in wanted for key, wanted in self.when.items())

    def as_entry(self) -> dict[str, Any]:
        """The range as a search-space file has it."""
        # A list means one of several values, also where a value is itself a list.
        when = {
            key: wanted[0] if len(wanted) == 1 and not isinstance(wanted[0], list) else list(wanted)
            for key, wanted in self.when.items()
        }
        return self.range.as_entry() | ({"when": when} if when else {})


@dataclass(frozen=True)
class Parameter:
    """A searched key with its ranges, of which at most one holds at once."""

    key: str
    branches: tuple[Branch, ...]

    def active_branch(self, values: Mapping[str, Any]) -> Branch | None:
        """The range that holds with the values of the keys before this one; None where the spec's value stays."""
        return next((branch for branch in self.branches if branch.applies(values)), None)

    def condition_keys(self) -> list[str]:
        """The keys that decide."""
        return list(dict.fromkeys(key for branch in self.branches for key in branch.when))


def sort_by_conditions(parameters: Mapping[str, Parameter]) -> list[Parameter]:
    """The parameters in the given order, but each behind those that its conditions look at.

    Raises:
        ValueError: a condition on a key that is not in the space, or conditions in a circle.
    """
    for key, parameter in parameters.items():
        for other in parameter.condition_keys():
            if other not in parameters:
                raise ValueError(f"space.{key}: when: {other} is not in the space, so it has one value only.")
    left, ordered = dict(parameters), list[Parameter]()
    while left:
        ready = next((key for key in left if left.keys().isdisjoint(left[key].condition_keys())), None)
        if ready is None:
            raise ValueError(f"space: when: the conditions go in a circle among {', '.join(left)}.")
        ordered.append(left.pop(ready))
    return ordered


def check_conditions(ordered: Sequence[Parameter], base: Mapping[str, Any]) -> list[str]:
    """The first fault in the conditions of each key: values that never occur, ranges that never hold or hold together.

    Exact: looks at all that the deciding keys can have together, the values that no condition names as one.
    """
    faults = {parameter.key: next(_faults(parameter, ordered, base), None) for parameter in ordered}
    return [f"space.{key}: {fault}" for key, fault in faults.items() if fault]


def _faults(parameter: Parameter, ordered: Sequence[Parameter], base: Mapping[str, Any]) -> Iterator[str]:
    deciding = _deciding(parameter, ordered)
    situations = list(itertools.islice(_situations(deciding, _mentioned(ordered), {}, base), _MOST_SITUATIONS + 1))
    if len(situations) > _MOST_SITUATIONS:
        yield f"when: the conditions depend on more than {_MOST_SITUATIONS:,} combinations of other keys: use fewer."
        return
    for key, wanted in _mentioned([parameter]).items():
        for value in wanted:
            if all(situation[key] != value for situation in situations):
                yield f"when: {key} never has the value {value!r}."
    for branch in parameter.branches:
        if not any(branch.applies(situation) for situation in situations):
            yield f"{branch.as_entry()} is never searched: its conditions never hold together."
    for pair in itertools.combinations(parameter.branches, 2):
        if any(all(branch.applies(situation) for branch in pair) for situation in situations):
            both = " and ".join(str(branch.as_entry()) for branch in pair)
            yield f"{both} can hold at once: let their conditions exclude each other."


def _deciding(parameter: Parameter, ordered: Sequence[Parameter]) -> list[Parameter]:
    """The parameters on which the conditions of one depend, directly or not."""
    wanted = set(parameter.condition_keys())
    for other in reversed(ordered):
        if other.key in wanted:
            wanted |= set(other.condition_keys())
    return [other for other in ordered if other.key in wanted]


def _mentioned(parameters: Iterable[Parameter]) -> dict[str, list[Any]]:
    """By key the values that conditions name."""
    found: dict[str, list[Any]] = {}
    for branch in (branch for parameter in parameters for branch in parameter.branches):
        for key, wanted in branch.when.items():
            known = found.setdefault(key, [])
            known += [value for value in wanted if value not in known]
    return found


def _situations(
    deciding: Sequence[Parameter], mentioned: Mapping[str, list[Any]], so_far: dict[str, Any], base: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    if not deciding:
        yield so_far
        return
    key, branch = deciding[0].key, deciding[0].active_branch(so_far)
    options = [base[key]] if branch is None else _options(branch.range, mentioned[key])
    for value in options:
        yield from _situations(deciding[1:], mentioned, so_far | {key: value}, base)


def _options(range: Range, mentioned: list[Any]) -> list[Any]:
    """The mentioned values that a range has, and `_OTHER` if it has more; of a continuous one none is ever drawn."""
    values = range.values()
    if values is None:
        return [_OTHER]
    inside = [value for value in mentioned if range.encode("", value) is not None]
    return inside + ([_OTHER] if any(value not in mentioned for value in values) else [])
