"""Plot of a metric over the settings of a re-ranking search."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reid_tune.evaluation.plots import make_figure
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

__all__ = ["rerank_plot"]

_COLUMNS = 3


def rerank_plot(
    settings: Sequence[ReRanking], values: Sequence[float], metric: str, plain: float, path: Path | str
) -> None:
    """Draw a metric over k1 and k2, one panel for each lambda, into a .png, .pdf or .svg file.

    Args:
        settings: A full grid of settings, in any order.
        values: The metric of each setting, a fraction.
        metric: Name of the metric.
        plain: The metric without re-ranking.

    Raises:
        InputError: the folder cannot be written.
    """
    from matplotlib.patches import Rectangle

    k1, k2 = (sorted(values) for values in map(set, zip(*(setting.pair for setting in settings), strict=True)))
    weights = sorted({setting.lambda_value for setting in settings})
    percent = {setting: 100 * value for setting, value in zip(settings, values, strict=True)}
    best = max(percent, key=lambda setting: percent[setting])
    columns, lines = min(len(weights), _COLUMNS), -(-len(weights) // _COLUMNS)
    cell_width, cell_height = 0.55, 0.4
    size = columns * (len(k2) * cell_width + 0.9) + 1.0, lines * (len(k1) * cell_height + 1.0) + 0.6
    figure, full_axes = make_figure(max(size[0], 6.0), size[1])
    full_axes.remove()
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    low, high = min(percent.values()), max(percent.values())
    for panel, weight in zip(panels, weights, strict=False):
        grid = np.array([[percent[ReRanking(a, b, weight)] for b in k2] for a in k1])
        image = _draw_panel(panel, grid, low, high)
        if weight == best.lambda_value:
            corner = k2.index(best.k2) - 0.5, k1.index(best.k1) - 0.5
            panel.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=3, clip_on=False))
        panel.set(title=f"lambda = {weight:g}", xlabel="k2", ylabel="k1")
        panel.set_xticks(range(len(k2)), k2)
        panel.set_yticks(range(len(k1)), k1)
    for panel in panels[len(weights) :]:
        panel.set_axis_off()
    figure.colorbar(image, ax=list(panels), label=f"{metric} (%)")
    figure.suptitle(
        f"{metric} after re-ranking: best {percent[best]:.1f} % (framed), without {100 * plain:.1f} %", fontsize=11
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_panel(axes: "Axes", grid: np.ndarray, low: float, high: float) -> "AxesImage":
    """Draw the values [k1, k2] in percent as a heat map with numbers, on a colour scale from low to high."""
    image = axes.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto", origin="lower")
    for row, column in np.ndindex(grid.shape):
        bright = grid[row, column] > (low + high) / 2
        text = f"{grid[row, column]:.1f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="black" if bright else "white")
    return image
