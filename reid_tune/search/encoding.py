"""Configurations of a search space as points of a unit cube, and as inputs of the Gaussian process."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, IntDistribution

from reid_tune.search.configurations import value_text
from reid_tune.search.kernel import Points
from reid_tune.search_space.ranges import LOGARITHMIC_KINDS, ListRange, NumberRange, Range
from reid_tune.search_space.space import SearchSpace

__all__ = ["SpaceEncoding"]

_OUTSIDE = 0.5  # share of a range by which a value may be outside of it and still tell something about it


class SpaceEncoding:
    """Conversions between configurations and numbers.

    A position in the unit cube has one coordinate for each of Optuna's names, of all ranges; those of ranges that are
    not searched have no effect. The process's inputs have one column for each key, so that the ranges of a key share
    it: a number's place in the range that applies, or the index of a choice. A key that is not searched is in the
    middle of its range: the key in its condition tells the process the difference.

    Args:
        space: Search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        branches = [(parameter.key, branch) for parameter in space.parameters for branch in parameter.branches]
        self._distributions = {branch.name: branch.range.distributions(branch.name) for _, branch in branches}
        names = [name for distributions in self._distributions.values() for name in distributions]
        self._coordinates = _columns(names)
        self._decoders = {
            branch: [(name, self._coordinates[name], _decoder(distribution)) for name, distribution in inner.items()]
            for branch, inner in self._distributions.items()
        }
        # The bundle tells the process what its fixed values would.
        fixed = {parameter.key for parameter in space.parameters if parameter.is_fixed_by_bundle}
        leaves = [leaf for key, branch in branches if key not in fixed for leaf in _leaves(key, branch.range)]
        self._numbers = _columns(name for name, range_ in leaves if isinstance(range_, NumberRange))
        self._choices = _columns(name for name, range_ in leaves if not isinstance(range_, NumberRange))
        self._options: dict[str, dict[str, int]] = {name: {} for name in self._choices}

    @property
    def dimensions(self) -> int:
        """Number of coordinates of the unit cube."""
        return len(self._coordinates)

    def coordinates_by_key(self) -> dict[str, list[int]]:
        """Return by key the coordinates of all its ranges, without keys that have none."""
        coordinates = {
            parameter.key: [
                self._coordinates[name] for branch in parameter.branches for name in self._distributions[branch.name]
            ]
            for parameter in self.space.parameters
        }
        return {key: columns for key, columns in coordinates.items() if columns}

    def configuration(self, position: np.ndarray) -> dict[str, Any]:
        """Return the configuration at a position [dimensions] of the unit cube."""
        configuration: dict[str, Any] = {}
        values = dict(self.space.base)
        coordinates = position.tolist()
        for parameter in self.space.parameters:
            branch = parameter.active_branch(values)
            if branch:
                decoders = self._decoders[branch.name]
                drawn = {name: decode(coordinates[coordinate]) for name, coordinate, decode in decoders}
                value = branch.range.decode(branch.name, drawn)
                configuration[parameter.key] = values[parameter.key] = value
        return configuration

    def position(self, configuration: Mapping[str, Any], default: np.ndarray) -> np.ndarray:
        """Return the position of a configuration, with the default's coordinates where it has none in the ranges."""
        position = default.copy()
        values = self.space.base | dict(configuration)
        for key, branch in self.space.active_branches(configuration).items():
            for name, value in (branch.range.encode(branch.name, values[key]) or {}).items():
                position[self._coordinates[name]] = _coordinate(self._distributions[branch.name][name], value)
        return position

    def points(self, configurations: Sequence[Mapping[str, Any]], epochs: Sequence[float]) -> Points:
        """Return inputs of the process.

        Args:
            configurations: Configurations, one for each point.
            epochs: Logarithms of the shares of the full length.
        """
        numbers = [[0.5] * len(self._numbers) for _ in configurations]
        choices = [[-1] * len(self._choices) for _ in configurations]
        for row, configuration in enumerate(configurations):
            values = self.space.base | dict(configuration)
            for parameter in self.space.parameters:
                branch = parameter.active_branch(values)
                if branch:
                    self._fill(numbers[row], choices[row], parameter.key, branch.range, values[parameter.key])
        count = len(configurations)
        return Points(
            np.array(numbers, dtype=float).reshape(count, len(self._numbers)),
            np.array(choices, dtype=int).reshape(count, len(self._choices)),
            np.array(epochs, dtype=float),
        )

    def has_place(self, configuration: Mapping[str, Any]) -> bool:
        """Whether each number is at most half a range outside of its range, and each other value one of the choices."""
        values = self.space.base | dict(configuration)
        branches = self.space.active_branches(configuration)
        return all(_has_place(branch.range, values[key]) for key, branch in branches.items())

    def _fill(self, numbers: list[float], choices: list[int], name: str, range_: Range, value: Any) -> None:
        if isinstance(range_, NumberRange):
            if isinstance(value, int | float):
                numbers[self._numbers[name]] = _share(range_, value)
        elif isinstance(range_, ListRange) and isinstance(value, list) and len(value) == len(range_.elements):
            for index, (inner, element) in enumerate(zip(range_.elements, value, strict=True)):
                self._fill(numbers, choices, f"{name}[{index}]", inner, element)
        elif name in self._options:
            options = self._options[name]
            text = value_text(value) if isinstance(value, list | dict) else _scalar_text(value)
            choices[self._choices[name]] = options.setdefault(text, len(options))


@lru_cache(maxsize=1000, typed=True)
def _scalar_text(value: Any) -> str:
    return value_text(value)


def _columns(names: Iterable[str]) -> dict[str, int]:
    """Return the column of each name, in the order of their first occurrence."""
    return {name: column for column, name in enumerate(dict.fromkeys(names))}


def _leaves(name: str, range_: Range) -> Iterator[tuple[str, Range]]:
    """Yield name and range of a key, or of each element of its lists."""
    if isinstance(range_, ListRange):
        for index, inner in enumerate(range_.elements):
            yield from _leaves(f"{name}[{index}]", inner)
    else:
        yield name, range_


def _has_place(range_: Range, value: Any) -> bool:
    if isinstance(range_, NumberRange):
        return isinstance(value, int | float) and -_OUTSIDE <= _share(range_, value) <= 1 + _OUTSIDE
    if isinstance(range_, ListRange):
        if not isinstance(value, list) or len(value) != len(range_.elements):
            return False
        return all(_has_place(inner, element) for inner, element in zip(range_.elements, value, strict=True))
    return range_.encode("", value) is not None


def _share(range_: NumberRange, value: float) -> float:
    """Return a number's place in its range, 0 at the low end and 1 at the high end; also for numbers outside of it."""
    low, high = range_.low, range_.high
    if high == low:
        return 0.5
    if range_.kind in LOGARITHMIC_KINDS:
        if value <= 0:
            return -1.0
        low, high, value = math.log(low), math.log(high), math.log(value)
    return min(2.0, max(-1.0, (value - low) / (high - low)))


def _decoder(distribution: Any) -> Callable[[float], Any]:
    """Return the function that returns the value of one of Optuna's distributions at a coordinate from 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        choices, last = distribution.choices, len(distribution.choices) - 1
        return lambda coordinate: choices[min(int(coordinate * (last + 1)), last)]
    low, high, is_logarithmic = distribution.low, distribution.high, distribution.log
    is_integer = isinstance(distribution, IntDistribution)
    start, end = (low - 0.5, high + 0.5) if is_integer else (low, high)  # Each integer has the same share.
    if is_logarithmic:
        start, end = math.log(start), math.log(end)

    def value_at(coordinate: float) -> Any:
        value = start + coordinate * (end - start)
        if is_logarithmic:
            value = math.exp(value)
        return min(max(round(value) if is_integer else value, low), high)

    return value_at


def _coordinate(distribution: Any, value: Any) -> float:
    """Return the coordinate at which `_decoder` has the value."""
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.choices.index(value) + 0.5) / len(distribution.choices)
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution):
        low, high = low - 0.5, high + 0.5
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low)) if high > low else 0.5
