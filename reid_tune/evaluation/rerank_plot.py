"""The picture of a search over settings of the re-ranking."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reid_tune.evaluation.plots import make_figure
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.files import atomic_path

__all__ = ["rerank_plot"]

_COLUMNS = 3


def rerank_plot(
    settings: Sequence[ReRanking], values: Sequence[float], metric: str, plain: float, path: Path | str
) -> None:
    """Draw a metric over k1 and k2, one field for each lambda, into a .png, .pdf or .svg file.

    Args:
        settings: A whole grid, in any order.
        values: The metric of each setting, a fraction.
        metric: Its name.
        plain: Its value without re-ranking.

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
    figure, whole = make_figure(max(size[0], 6.0), size[1])
    whole.remove()
    fields = figure.subplots(lines, columns, squeeze=False).ravel()
    low, high = min(percent.values()), max(percent.values())
    for field, weight in zip(fields, weights, strict=False):
        grid = np.array([[percent[ReRanking(a, b, weight)] for b in k2] for a in k1])
        image = field.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto", origin="lower")
        for row, column in np.ndindex(grid.shape):
            bright = grid[row, column] > (low + high) / 2
            text = f"{grid[row, column]:.1f}"
            field.text(column, row, text, ha="center", va="center", fontsize=8, color="black" if bright else "white")
        if weight == best.lambda_value:
            corner = k2.index(best.k2) - 0.5, k1.index(best.k1) - 0.5
            field.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", linewidth=3, clip_on=False))
        field.set(title=f"lambda = {weight:g}", xlabel="k2", ylabel="k1")
        field.set_xticks(range(len(k2)), k2)
        field.set_yticks(range(len(k1)), k1)
    for field in fields[len(weights) :]:
        field.set_axis_off()
    figure.colorbar(image, ax=list(fields), label=f"{metric} (%)")
    figure.suptitle(
        f"{metric} after re-ranking: best {percent[best]:.1f} % (framed), without {100 * plain:.1f} %", fontsize=11
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
