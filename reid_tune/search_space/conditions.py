"""Conditional ranges: the range of a key that is searched, by the values of other keys."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reid_tune.config.keys import is_bundle_key
from reid_tune.search_space.ranges import Range

__all__ = ["Branch", "Parameter", "check_conditions", "find_missing_keys", "sort_by_conditions"]

_MAX_COMBINATIONS = 20_000
# Stands for all values that no condition names.
_OTHER = object()


@dataclass(frozen=True)
class Branch:
    """One range of a key.

    Attributes:
        name: Optuna's name of the range, different from those of the key's other ranges.
        range: Values of the key.
        when: Conditions: by key the values with which this range is searched. All keys must match.
    """

    name: str
    range: Range
    when: Mapping[str, tuple[Any, ...]]

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether a configuration satisfies all conditions."""
        return not self.when or all(values[key] in options for key, options in self.when.items())

    def as_entry(self) -> dict[str, Any]:
        """Return the range as a search-space file writes it."""
        # A list means one of several values, also where a value is itself a list.
        when = {
            key: options[0] if len(options) == 1 and not isinstance(options[0], list) else list(options)
            for key, options in self.when.items()
        }
        return self.range.as_entry() | ({"when": when} if when else {})


@dataclass(frozen=True)
class Parameter:
    """A searched key with its ranges, of which at most one applies at a time."""

    key: str
    branches: tuple[Branch, ...]

    def active_branch(self, values: Mapping[str, Any]) -> Branch | None:
        """Return the range that applies with the values of the keys before this one, None if the spec's value stays."""
        for branch in self.branches:  # Twice as fast as a generator, in a loop over thousands of candidates.
            if branch.applies(values):
                return branch
        return None

    @property
    def is_fixed_by_bundle(self) -> bool:
        """Whether it has one value in each bundle that has the key."""
        return all(
            not branch.range.distributions(branch.name) and any(map(is_bundle_key, branch.when))
            for branch in self.branches
        )

    def condition_keys(self) -> list[str]:
        """Return the keys that the conditions name."""
        return list(dict.fromkeys(key for branch in self.branches for key in branch.when))


def find_missing_keys(parameters: Iterable[Parameter], keys: Collection[str]) -> list[str]:
    """Return an error for each key in a condition that is not among the keys of the space."""
    return [
        f"space.{parameter.key}: when: {other} is not in the space, so it has one value only."
        for parameter in parameters
        for other in parameter.condition_keys()
        if other not in keys
    ]


def sort_by_conditions(parameters: Mapping[str, Parameter]) -> list[Parameter]:
    """Return the parameters in the given order, but each after those that its conditions name.

    Raises:
        ValueError: conditions depend on each other in a circle.
    """
    remaining, ordered = dict(parameters), list[Parameter]()
    while remaining:
        free = [key for key in remaining if remaining.keys().isdisjoint(remaining[key].condition_keys())]
        if not free:
            raise ValueError(f"space: when: the conditions form a circle among {', '.join(remaining)}.")
        ordered.append(remaining.pop(free[0]))
    return ordered


def check_conditions(ordered: Sequence[Parameter], base: Mapping[str, Any]) -> list[str]:
    """Return the first error in the conditions of each key.

    Errors are values that never occur, ranges that never apply, and ranges that can apply together. The check is exact:
    it goes through all combinations of values of the deciding keys, where the values that no condition names count as
    one.

    Args:
        ordered: Parameters in the order of `sort_by_conditions`.
        base: The spec's values by key.
    """
    errors = {parameter.key: next(_errors(parameter, ordered, base), None) for parameter in ordered}
    return [f"space.{key}: {error}" for key, error in errors.items() if error]


def _errors(parameter: Parameter, ordered: Sequence[Parameter], base: Mapping[str, Any]) -> Iterator[str]:
    deciding = _deciding_parameters(parameter, ordered)
    stream = _combinations(deciding, _values_in_conditions(ordered), {}, base)
    combinations = list(itertools.islice(stream, _MAX_COMBINATIONS + 1))
    if len(combinations) > _MAX_COMBINATIONS:
        yield f"when: the conditions depend on more than {_MAX_COMBINATIONS:,} combinations of other keys: use fewer."
        return
    for key, options in _values_in_conditions([parameter]).items():
        for value in options:
            if all(values[key] != value for values in combinations):
                yield f"when: {key} never has the value {value!r}."
    for branch in parameter.branches:
        if not any(branch.applies(values) for values in combinations):
            yield f"{branch.as_entry()} is never searched: its conditions never hold together."
    for pair in itertools.combinations(parameter.branches, 2):
        if any(all(branch.applies(values) for branch in pair) for values in combinations):
            both = " and ".join(str(branch.as_entry()) for branch in pair)
            yield f"{both} can apply at the same time: let their conditions exclude each other."


def _deciding_parameters(parameter: Parameter, ordered: Sequence[Parameter]) -> list[Parameter]:
    """Return the parameters on which the conditions of one depend, directly or not."""
    keys = set(parameter.condition_keys())
    for other in reversed(ordered):
        if other.key in keys:
            keys |= set(other.condition_keys())
    return [other for other in ordered if other.key in keys]


def _values_in_conditions(parameters: Iterable[Parameter]) -> dict[str, list[Any]]:
    """Return by key the values that conditions name, each once."""
    named: dict[str, list[Any]] = {}
    for branch in (branch for parameter in parameters for branch in parameter.branches):
        for key, options in branch.when.items():
            values = named.setdefault(key, [])
            values += [value for value in options if value not in values]
    return named


def _combinations(
    deciding: Sequence[Parameter], named: Mapping[str, list[Any]], prefix: dict[str, Any], base: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield all combinations of values of the deciding keys that begin with `prefix`."""
    if not deciding:
        yield prefix
        return
    key, branch = deciding[0].key, deciding[0].active_branch(prefix)
    options = [base[key]] if branch is None else _options(branch.range, named[key])
    for value in options:
        yield from _combinations(deciding[1:], named, prefix | {key: value}, base)


def _options(range: Range, named: list[Any]) -> list[Any]:
    """Return the named values that a range has, and `_OTHER` if it has further ones.

    A continuous range has none of the named values, since none of them is ever drawn.
    """
    values = range.values()
    if values is None:
        return [_OTHER]
    inside = [value for value in named if range.encode("", value) is not None]
    return inside + ([_OTHER] if any(value not in named for value in values) else [])
