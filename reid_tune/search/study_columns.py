"""The columns of an Optuna study: one distribution for each searched key, or for each element of its lists."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from reid_tune.search.configurations import value_text
from reid_tune.search_space.ranges import INTEGER_KINDS, LOGARITHMIC_KINDS, ListRange, NumberRange, Range
from reid_tune.search_space.space import SearchSpace

if TYPE_CHECKING:
    from reid_tune.search_space.ranges import Distribution, Distributions

__all__ = ["StudyColumns"]


class StudyColumns:
    """Distributions that contain all ranges of a key and the values of all trials.

    Optuna's tools compare trials only where their distributions are equal. But the spec's values and those of warm
    starts may be outside of the ranges, and a conditional key may have several ranges.

    Args:
        space: Search space.
        configurations: Values of the searched keys in each trial.

    Attributes:
        distributions: Optuna's distributions by key, with an index for an element of a list: `train.optim.lr_steps[0]`.
            Keys with the same value in all trials are left out.
    """

    def __init__(self, space: SearchSpace, configurations: Sequence[Mapping[str, Any]]) -> None:
        self.space = space
        ranges: dict[str, list[Range]] = {}
        for parameter in space.parameters:
            for branch in parameter.branches:
                for name, range_ in _leaf_ranges(parameter.key, branch.range):
                    ranges.setdefault(name, []).append(range_)
        values: dict[str, list[Any]] = {name: [] for name in ranges}
        for configuration in configurations:
            for name, value in self._leaf_values(configuration).items():
                values[name].append(value)
        self.distributions: Distributions = {}
        self._options: dict[str, dict[str, Any]] = {}  # of categories: Optuna's values by the value's text
        for name in ranges:
            self._add_distribution(name, ranges[name], values[name])

    def values(self, configuration: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a trial's values by the names of the distributions, and those by key that no distribution has."""
        leaves = self._leaf_values(configuration)
        values = {name: self._optuna_value(name, leaves[name]) for name in self.distributions if name in leaves}
        active = self.space.active_branches(configuration)
        covered = {name.partition("[")[0] for name in leaves}
        all_values = {key: self.space.base[key] for key in active} | dict(configuration)
        return values, {key: value for key, value in all_values.items() if key not in covered}

    def _leaf_values(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that have a range by the ranges' names."""
        values = self.space.base | dict(configuration)
        leaves: dict[str, Any] = {}
        for key, branch in self.space.active_branches(configuration).items():
            leaves |= _leaf_values(key, branch.range, values[key])
        return leaves

    def _add_distribution(self, name: str, ranges: Sequence[Range], values: Sequence[Any]) -> None:
        distribution: Distribution
        numbers = [range_ for range_ in ranges if isinstance(range_, NumberRange)]
        # A bundle may fix a number for which another one has a range.
        choices = [range_ for range_ in ranges if not isinstance(range_, NumberRange)]
        fixed_values = [option for range_ in choices for option in range_.spaced_values(2)] + list(values)
        if numbers and all(map(_is_number, fixed_values)):
            distribution = _number_distribution(numbers, fixed_values)
        else:
            options = [option for range_ in ranges for option in range_.spaced_values(2)] + list(values)
            self._options[name] = _optuna_options(options)
            distribution = CategoricalDistribution(list(self._options[name].values()))
        if not distribution.single():
            self.distributions[name] = distribution

    def _optuna_value(self, name: str, value: Any) -> Any:
        if name in self._options:
            return self._options[name][value_text(value)]
        return int(value) if isinstance(self.distributions[name], IntDistribution) else float(value)


def _leaf_ranges(name: str, range_: Range) -> Iterator[tuple[str, Range]]:
    """Yield name and range of a key, or of each element of its lists."""
    if isinstance(range_, ListRange):
        for index, inner in enumerate(range_.elements):
            yield from _leaf_ranges(f"{name}[{index}]", inner)
    else:
        yield name, range_


def _leaf_values(name: str, range_: Range, value: Any) -> dict[str, Any]:
    """Return the value of a key, or of each element of its lists, by name; nothing if the form is not the range's."""
    if isinstance(range_, NumberRange):
        return {name: value} if _is_number(value) else {}
    if not isinstance(range_, ListRange):
        return {name: value}
    if not isinstance(value, list) or len(value) != len(range_.elements):
        return {}
    leaves: dict[str, Any] = {}
    for index, (inner, element) in enumerate(zip(range_.elements, value, strict=True)):
        leaves |= _leaf_values(f"{name}[{index}]", inner, element)
    return leaves


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_distribution(ranges: Sequence[NumberRange], values: Sequence[float]) -> "Distribution":
    ends = [end for range_ in ranges for end in (range_.low, range_.high)]
    low, high = min([*ends, *values]), max([*ends, *values])
    is_logarithmic = low > 0 and all(range_.kind in LOGARITHMIC_KINDS for range_ in ranges)
    # A value of the spec may be between the steps.
    has_steps = len(ranges) == 1 and all(ranges[0].encode("", value) is not None for value in values)
    step = ranges[0].step if has_steps else None
    is_whole = all(range_.kind in INTEGER_KINDS or isinstance(range_.step, int) for range_ in ranges)
    if is_whole and all(float(value).is_integer() for value in [low, high, *values]):
        return IntDistribution(int(low), int(high), log=is_logarithmic, step=int(step or 1))
    return FloatDistribution(low, high, log=is_logarithmic, step=step)


def _optuna_options(options: Sequence[Any]) -> dict[str, Any]:
    """Return Optuna's values by text: those of the spec, or JSON where these are lists or Optuna confuses them."""
    distinct: dict[str, Any] = {}
    for option in options:
        distinct.setdefault(value_text(option), option)
    kinds = {bool if isinstance(option, bool) else type(option) for option in distinct.values()}
    if kinds <= {str, type(None), bool} or kinds <= {str, type(None), int, float}:
        return distinct
    return {text: json.dumps(option) for text, option in distinct.items()}
