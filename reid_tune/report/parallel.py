"""Parallel coordinates of a sweep's trials, as inline SVG."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.formatting import format_value, shorten
from reid_tune.report.summary import ranked_trials, winner_run
from reid_tune.report.svg import CARD, COLOURS, render_svg
from reid_tune.search.parameters import SearchedParameter, searched_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Scale", "parallel_chart", "varied_parameters"]

_MAX_TRIALS = 300  # the best ones
_MAX_KEYS = 11  # of the most important ones
_MAX_NAMES = 8  # labels on an axis of categories
_AXIS_WIDTH = 1.5  # inches


def varied_parameters(state: SweepState) -> list[SearchedParameter]:
    """Return the searched parameters that have more than one value."""
    return [parameter for parameter in searched_parameters(state) if len(parameter.value_names(state.trials)) > 1]


@dataclass(frozen=True)
class Scale:
    """Positions of the values on an axis, 0 at its low end and 1 at its high end.

    Attributes:
        label: Name of the axis.
        positions: Position by trial number, without the trials that have no value.
        ticks: Position and label of each tick; of numbers those of both ends.
        is_numeric: Whether the values are numbers, not categories.
    """

    label: str
    positions: Mapping[int, float]
    ticks: Sequence[tuple[float, str]]
    is_numeric: bool = True

    @classmethod
    def of_parameter(cls, parameter: SearchedParameter, trials: list[RunState]) -> "Scale":
        """Return the axis of a searched key; null has no place among numbers."""
        values = parameter.values_by_trial(trials)
        if parameter.is_numeric(trials):
            numbers = {number: float(value) for number, value in values.items() if value is not None}
            logarithmic = parameter.is_logarithmic and min(numbers.values()) > 0
            return cls.of_numbers(parameter.label + (" (log)" if logarithmic else ""), numbers, logarithmic)
        names = parameter.value_names(trials)
        last = max(1, len(names) - 1)
        spread = min(0.05, 0.2 / last)  # of the trials of one value
        positions = {
            number: names.index(json.dumps(value)) / last + spread * ((number * 0.618) % 1 - 0.5)
            for number, value in values.items()
        }
        step = -(-len(names) // _MAX_NAMES)
        ticks = [(index / last, _plain(names[index])) for index in range(0, len(names), step)]
        return cls(parameter.label, positions, ticks, is_numeric=False)

    @classmethod
    def of_numbers(cls, label: str, numbers: Mapping[int, float], logarithmic: bool) -> "Scale":
        """Return an axis from the smallest number to the largest one."""
        low, high = min(numbers.values()), max(numbers.values())
        transform = math.log if logarithmic else float
        span = transform(high) - transform(low) or 1.0
        positions = {number: (transform(value) - transform(low)) / span for number, value in numbers.items()}
        return cls(label, positions, [(0.0, format_value(low)), (1.0, format_value(high))])


def parallel_chart(state: SweepState, importances: Mapping[str, float]) -> str:
    """Return a chart with an axis for each searched key and one for the score, and a line for each trial.

    A line has a gap where a condition leaves a key out. With many keys the most important ones are drawn.

    Args:
        importances: Importance of each searched key, perhaps empty.
    """
    trials = ranked_trials(state)[:_MAX_TRIALS]
    parameters = varied_parameters(state)
    if len(parameters) > _MAX_KEYS:
        chosen = sorted(parameters, key=lambda parameter: -importances.get(parameter.key, 0.0))[:_MAX_KEYS]
        parameters = [parameter for parameter in parameters if parameter in chosen]
    scores = {trial.number: 100 * score for trial in trials if (score := trial.last(state.metric)) is not None}
    scales = [Scale.of_parameter(parameter, state.trials) for parameter in parameters]
    scales.append(Scale.of_numbers(f"{state.metric} %", scores, logarithmic=False))

    def draw(axes: "Axes") -> None:
        for trial, style in reversed(list(zip(trials, _styles(trials, winner_run(state)), strict=True))):
            _draw_line(axes, [scale.positions.get(trial.number, math.nan) for scale in scales], style)
        for index, scale in enumerate(scales):
            _draw_axis(axes, index, scale)
        axes.set(xlim=(-0.3, len(scales) - 0.55), ylim=(-0.13, 1.13))
        axes.axis("off")

    width = max(4.4, _AXIS_WIDTH * len(scales))
    return render_svg(draw, f"searched parameters and {state.metric} of each trial", 3.4, width)


def _styles(trials: Sequence[RunState], best: RunState | None) -> list[dict[str, Any]]:
    """Return the style of each trial's line; the better a full-length trial, the stronger its line."""
    full = sum(trial.state == "finished" for trial in trials)
    styles: list[dict[str, Any]] = []
    for rank, trial in enumerate(trials):
        if best is not None and trial.number == best.number:
            styles.append({"color": COLOURS["orange"], "linewidth": 2.2})
        elif trial.number == 0:
            styles.append({"color": COLOURS["ink"], "linewidth": 1.8})
        elif trial.state == "finished":
            styles.append({"color": COLOURS["blue"], "linewidth": 0.9, "alpha": 0.9 - 0.65 * rank / full})
        else:
            colour = COLOURS["pink" if trial.state == "failed" else "faint"]
            styles.append({"color": colour, "linewidth": 0.7, "alpha": 0.35})
    return styles


def _draw_line(axes: "Axes", heights: Sequence[float], style: Mapping[str, Any]) -> None:
    axes.plot(range(len(heights)), heights, **style)
    neighbours = [math.nan, *heights, math.nan]
    alone = [
        index
        for index, height in enumerate(heights)
        if not math.isnan(height) and math.isnan(neighbours[index]) and math.isnan(neighbours[index + 2])
    ]
    if alone:
        points = {"color": style["color"], "alpha": style.get("alpha", 1.0), "linestyle": "none"}
        axes.plot(alone, [heights[index] for index in alone], marker="o", markersize=2.5, **points)


def _draw_axis(axes: "Axes", index: int, scale: Scale) -> None:
    axes.plot([index, index], [-0.02, 1.02], color=COLOURS["ink"], linewidth=0.8)
    axes.text(index, 1.13, shorten(scale.label, 19), ha="center", va="bottom", fontsize=9)
    box = {"facecolor": CARD, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    for height, label in scale.ticks:
        if scale.is_numeric:  # Below and above the axis.
            vertical, offset = ("bottom", 0.035) if height else ("top", -0.035)
            axes.text(index, height + offset, label, ha="center", va=vertical, fontsize=8)
        else:
            axes.text(index + 0.05, height, shorten(label, 14), ha="left", va="center", fontsize=8, bbox=box)


def _plain(name: str) -> str:
    value: Any = json.loads(name)
    return value if isinstance(value, str) else name
