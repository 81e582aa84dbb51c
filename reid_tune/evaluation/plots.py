"""Plots of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reid_tune.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ENDINGS", "MAX_FRAMES", "Frame", "cmc_plot", "matches_plot", "make_figure"]

ENDINGS = (".png", ".pdf", ".svg")
MAX_FRAMES = 10_000  # in one picture of matches

# Okabe and Ito's palette; line styles and markers tell the curves apart without any colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_KINDS = {
    "query": ("#0072B2", "-"),
    "same identity": ("#009E73", "-"),
    "other identity": ("#D55E00", (0, (3, 2))),
}
_MAX_PIXELS, _MAX_SIDE = 1e8, 3e4


@dataclass(frozen=True)
class Frame:
    """An image uint8 [H, W, 3] in a row of matches; `correct` is None for the query."""

    image: np.ndarray
    caption: str
    correct: bool | None = None

    @property
    def kind(self) -> str:
        """Name of the frame in the legend."""
        return "query" if self.correct is None else "same identity" if self.correct else "other identity"


def cmc_plot(curves: Mapping[str, np.ndarray], path: Path | str) -> None:
    """Draw CMC curves, name -> matching rates [ranks] as fractions, into a .png, .pdf or .svg file.

    Raises:
        InputError: the folder cannot be written.
    """
    names = [f"{name} ({100 * curve[0]:.1f} % at rank 1)" for name, curve in curves.items()]
    ranks = max((len(curve) for curve in curves.values()), default=1)
    figure, axes = make_figure(max(6.4, 1 + 0.08 * max(map(len, names))), 4.2 + 0.2 * len(names))
    every = -(-ranks // 6)
    for number, curve in enumerate(curves.values()):
        first = every * (number + 1) // (len(names) + 1)  # shifted against the markers of other curves
        axes.plot(
            np.arange(1, len(curve) + 1),
            100 * np.asarray(curve),
            label=str(number),
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_STYLES[number % len(_STYLES)],
            linewidth=2,
            marker=_MARKERS[number % len(_MARKERS)],
            markevery=[0, *range(first, len(curve), every)],
        )
    axes.set(xlabel="Rank", ylabel="Matching rate (%)", title="Cumulative matching characteristic")
    axes.set_xticks(range(1, ranks + 1) if ranks <= 10 else [1, *range(5, ranks + 1, -(-ranks // 50) * 5)])
    axes.set_ylim(top=101)
    axes.grid(alpha=0.3)
    legend = figure.legend(loc="outside lower center", handlelength=4, frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        # Set here: matplotlib leaves labels that begin with _ out, and reads those with $ as formulas.
        text.set(text=name, parse_math=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def matches_plot(rows: Sequence[Sequence[Frame]], ranks: int, title: str, path: Path | str) -> None:
    """Draw rows of a query and its best matches into a .png, .pdf or .svg file.

    Queries and correct matches have solid frames, wrong ones dashed frames, in different colours.

    Args:
        rows: Rows of a query and up to `ranks` matches; all images have one size; at most MAX_FRAMES cells.

    Raises:
        InputError: the folder cannot be written.
    """
    height, width = rows[0][0].image.shape[:2]
    scale = 1.2 / max(height, width)  # inches per pixel
    step_x, step_y = (1 + ranks) * (width * scale + 0.15), len(rows) * (height * scale + 0.3)
    figure, axes = make_figure(max(step_x, 4.2), step_y + 0.9)
    column, line = step_x / (1 + ranks), step_y / len(rows)
    for line_number, row in enumerate(rows):
        for rank, frame in enumerate(row):
            _draw_frame(axes, frame, rank * column, line_number * line, width * scale, height * scale)
    for rank in range(ranks + 1):
        name = f"Rank {rank}" if rank else "Query"
        axes.text(rank * column + width * scale / 2, -0.1, name, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(-0.1, max(step_x, 4.2) - 0.1), ylim=(step_y, -0.35), aspect="equal")
    axes.set_axis_off()
    figure.suptitle(title, fontsize=10)
    figure.legend(handles=_handles(), loc="outside lower center", ncols=len(_KINDS), fontsize=8, frameon=False)
    inches = figure.get_size_inches()
    dpi = min(150, (_MAX_PIXELS / inches.prod()) ** 0.5, _MAX_SIDE / inches.max())
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def make_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """Make a figure of a size in inches with one pair of axes, without a window or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _draw_frame(axes: "Axes", frame: Frame, left: float, top: float, width: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    colour, style = _KINDS[frame.kind]
    axes.imshow(frame.image, extent=(left, left + width, top + height, top), interpolation="antialiased")
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linestyle=style, linewidth=2.5))
    axes.text(left + width / 2, top + height + 0.04, frame.caption, ha="center", va="top", fontsize=5)


def _handles() -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, linestyle=style, linewidth=2.5, label=name)
        for name, (colour, style) in _KINDS.items()
    ]
