"""The predicted score at full length over two searched keys."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reid_tune.errors import InputError
from reid_tune.journal.state import RunState, SweepState
from reid_tune.search.recorded_trials import RecordedTrials, ended_trials
from reid_tune.search_space.conditions import Parameter
from reid_tune.search_space.ranges import INTEGER_KINDS, LOGARITHMIC_KINDS, ListRange, NumberRange
from reid_tune.search_space.space import SearchSpace

__all__ = ["GridAxis", "PredictionGrid", "predict_grid"]

_MAX_NUMBERS = 25  # on an axis


@dataclass(frozen=True)
class GridAxis:
    """One axis of the grid.

    Attributes:
        key: Dotted key of the spec.
        values: Numbers in order, or the options of a choice.
        is_numeric: Whether the values are numbers, not options.
        is_logarithmic: Whether the numbers are spaced by their ratio.
    """

    key: str
    values: Sequence[Any]
    is_numeric: bool
    is_logarithmic: bool

    def position(self, value: Any) -> float | None:
        """Return a value's coordinate: the number or its logarithm, or the index of an option; None without one."""
        if not self.is_numeric:
            return float(self.values.index(value)) if value in self.values else None
        if not isinstance(value, int | float) or (self.is_logarithmic and value <= 0):
            return None
        return math.log10(value) if self.is_logarithmic else float(value)


@dataclass(frozen=True)
class PredictionGrid:
    """Predicted scores.

    Attributes:
        x: Horizontal axis.
        y: Vertical axis.
        scores: Scores [y, x] as fractions, NaN where conditions or constraints forbid the values. Constraints on costs
            of the network are left out, since up to 625 networks would be built.
    """

    x: GridAxis
    y: GridAxis
    scores: np.ndarray


def predict_grid(state: SweepState, pairs: Sequence[tuple[str, str]], around: RunState) -> PredictionGrid | None:
    """Return the predictions of the model of the search over two keys; pairs with lists are left out.

    Args:
        state: State of a sweep.
        pairs: Pairs of searched keys, of which the first one with two axes is taken.
        around: Trial whose values the other keys have.

    Returns:
        The grid; None without such a pair, with too few trials, or where this version cannot read the sweep.
    """
    try:
        recorded = RecordedTrials(state)
    except InputError:
        return None
    parameters = {parameter.key: parameter for parameter in recorded.space.parameters}
    axes = {key: axis for key in itertools.chain(*pairs) if key in parameters and (axis := _axis(parameters[key]))}
    pair = next((pair for pair in pairs if axes.keys() >= set(pair)), None)
    model = recorded.model(ended_trials(state))
    if pair is None or model is None:
        return None
    x, y = (axes[key] for key in pair)
    cells = [{x.key: x_value, y.key: y_value} for y_value in y.values for x_value in x.values]
    configurations = [_configuration(recorded.space, around.parameters, cell) for cell in cells]
    allowed = [index for index, configuration in enumerate(configurations) if configuration is not None]
    scores = np.full(len(cells), math.nan)
    if allowed:
        points = recorded.encoding.points([configurations[index] or {} for index in allowed], [0.0] * len(allowed))
        scores[allowed] = model.predict(points)[0]
    return PredictionGrid(x, y, scores.reshape(len(y.values), len(x.values)))


def _axis(parameter: Parameter) -> GridAxis | None:
    """Return the axis of a key, None for one with lists or a single value."""
    ranges = [branch.range for branch in parameter.branches]
    numbers = [range_ for range_ in ranges if isinstance(range_, NumberRange)]
    if any(isinstance(range_, ListRange) for range_ in ranges) or 0 < len(numbers) < len(ranges):
        return None
    if numbers:
        values: list[Any] = _spaced(numbers)
    else:
        options = [option for range_ in ranges for option in range_.spaced_values(2)]
        values = list({json.dumps(option): option for option in options}.values())
    is_logarithmic = bool(numbers) and all(range_.kind in LOGARITHMIC_KINDS for range_ in numbers)
    return GridAxis(parameter.key, values, bool(numbers), is_logarithmic) if len(values) > 1 else None


def _spaced(ranges: Sequence[NumberRange]) -> list[float]:
    """Return evenly spaced numbers from the lowest end to the highest one."""
    kind = ranges[0].kind if len({range_.kind for range_ in ranges}) == 1 else "uniform"
    if all(range_.kind in INTEGER_KINDS for range_ in ranges) and kind == "uniform":
        kind = "int"
    low, high = min(range_.low for range_ in ranges), max(range_.high for range_ in ranges)
    step = ranges[0].step if len(ranges) == 1 else None
    return NumberRange(kind, low, high, step).spaced_values(_MAX_NUMBERS)


def _configuration(space: SearchSpace, around: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a trial's configuration with other values of two keys; None where it has no such configuration."""
    configuration = space.complete({**around, **cell})
    branches = space.active_branches(configuration)
    for key, value in cell.items():
        if key not in configuration or configuration[key] != value:
            return None
        range_ = branches[key].range
        if isinstance(range_, NumberRange) and not range_.low <= value <= range_.high:
            return None
    return configuration if space.allows(configuration, with_costs=False) else None
