"""The predicted score over two searched parameters, as inline SVG."""

import math
from collections.abc import Mapping
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np

from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.formatting import shorten
from reid_tune.report.summary import winner_run
from reid_tune.report.svg import COLOURS, render_svg
from reid_tune.search.prediction_grid import GridAxis, PredictionGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["contour_chart"]

_LEVELS = 8
_MAX_NAMES = 6


def contour_chart(state: SweepState, grid: PredictionGrid, labels: Mapping[str, str]) -> str:
    """Return a chart of the predicted scores, the stronger the better, with the trials as points.

    Args:
        grid: Predicted scores, one of them finite at least.
        labels: Label of each searched key.
    """

    def draw(axes: "Axes") -> None:
        if grid.x.is_numeric and grid.y.is_numeric:
            _draw_contours(axes, grid)
        else:
            _draw_cells(axes, grid)
        _draw_trials(axes, state, grid)
        for axis, place in ((grid.x, axes.xaxis), (grid.y, axes.yaxis)):
            ticks = _ticks(axis)
            place.set_ticks([position for position, _ in ticks], [label for _, label in ticks])
            place.set_label_text(labels.get(axis.key, axis.key) + (" (log)" if axis.is_logarithmic else ""))
        axes.grid(visible=False)
        for axis, set_limits in ((grid.x, axes.set_xlim), (grid.y, axes.set_ylim)):
            edges = _edges(axis)
            set_limits(edges[0], edges[-1])

    return render_svg(draw, f"predicted {state.metric} by {grid.x.key} and {grid.y.key}")


def _shades() -> list[tuple[float, float, float, float]]:
    from matplotlib.colors import to_rgba

    return [to_rgba(COLOURS["blue"], alpha) for alpha in np.linspace(0.05, 0.85, _LEVELS)]


def _bounds(grid: PredictionGrid) -> np.ndarray:
    """Return the scores between which each shade lies."""
    low, high = np.nanmin(grid.scores), np.nanmax(grid.scores)
    return np.linspace(low, high if high > low else low + 1e-6, _LEVELS + 1)


def _draw_contours(axes: "Axes", grid: PredictionGrid) -> None:
    x, y = (_positions(axis) for axis in (grid.x, grid.y))
    scores, bounds = np.ma.masked_invalid(grid.scores), _bounds(grid)
    axes.contourf(x, y, scores, levels=bounds, colors=_shades(), extend="neither")
    axes.contour(x, y, scores, levels=bounds[1:-1], colors=COLOURS["blue"], linewidths=0.5)


def _draw_cells(axes: "Axes", grid: PredictionGrid) -> None:
    from matplotlib.patches import Rectangle

    x_edges, y_edges = _edges(grid.x), _edges(grid.y)
    shades, bounds = _shades(), _bounds(grid)
    for row, column in product(range(len(grid.y.values)), range(len(grid.x.values))):
        score = grid.scores[row, column]
        if math.isnan(score):
            continue
        level = min(_LEVELS - 1, max(0, int(np.searchsorted(bounds, score, side="right")) - 1))
        width, height = x_edges[column + 1] - x_edges[column], y_edges[row + 1] - y_edges[row]
        axes.add_patch(
            Rectangle((x_edges[column], y_edges[row]), width, height, facecolor=shades[level], edgecolor="none")
        )


def _draw_trials(axes: "Axes", state: SweepState, grid: PredictionGrid) -> None:
    best = winner_run(state)
    points = {trial.number: point for trial in state.trials if (point := _point(state, grid, trial))}
    others = [point for number, point in points.items() if best is None or number != best.number]
    axes.plot([x for x, _ in others], [y for _, y in others], ".", color=COLOURS["ink"], markersize=3.5, alpha=0.6)
    if best is not None and best.number in points:
        axes.plot(*points[best.number], "*", color=COLOURS["orange"], markersize=13)


def _point(state: SweepState, grid: PredictionGrid, trial: RunState) -> tuple[float, float] | None:
    """Return a trial's place, None where it has none; trials of one option are spread out."""
    values: Mapping[str, Any] = trial.parameters or state.header.spec
    if grid.x.key not in values or grid.y.key not in values:
        return None
    x, y = grid.x.position(values[grid.x.key]), grid.y.position(values[grid.y.key])
    if x is None or y is None:
        return None
    spread = 0.5 * ((trial.number * 0.618) % 1 - 0.5)
    return x + (0 if grid.x.is_numeric else spread), y + (0 if grid.y.is_numeric else spread)


def _positions(axis: GridAxis) -> list[float]:
    return [axis.position(value) or 0.0 for value in axis.values]


def _edges(axis: GridAxis) -> list[float]:
    """Return the borders of the cells."""
    positions = _positions(axis)
    inner = [(left + right) / 2 for left, right in pairwise(positions)]
    if axis.is_numeric:
        return [positions[0], *inner, positions[-1]]
    return [positions[0] - 0.5, *inner, positions[-1] + 0.5]


def _ticks(axis: GridAxis) -> list[tuple[float, str]]:
    """Return position and label of each tick."""
    from matplotlib.ticker import MaxNLocator

    if not axis.is_numeric:
        step = -(-len(axis.values) // _MAX_NAMES)
        return [(float(index), shorten(str(axis.values[index]), 12)) for index in range(0, len(axis.values), step)]
    low, high = axis.values[0], axis.values[-1]
    if axis.is_logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        numbers = [digit * 10.0**power for power in powers for digit in (1, 3)]
    else:
        is_whole = all(isinstance(value, int) for value in axis.values)
        numbers = list(MaxNLocator(5, integer=is_whole).tick_values(low, high))
    margin = 1e-9 * (high - low)
    inside = [number for number in numbers if low - margin <= number <= high + margin]
    return [(axis.position(number) or 0.0, f"{number:g}") for number in inside]
