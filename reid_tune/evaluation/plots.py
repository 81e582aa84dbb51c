"""Pictures of an evaluation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from reid_tune.files import atomic

__all__ = ["cmc_plot"]

# Okabe and Ito's palette; line styles tell the curves apart without any colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")


def cmc_plot(curves: Mapping[str, np.ndarray], path: Path | str) -> None:
    """Draw CMC curves, name -> matching rates [ranks] as fractions, into a .png, .pdf or .svg file.

    Raises:
        InputError: the folder cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(
            np.arange(1, len(curve) + 1),
            100 * np.asarray(curve),
            label=f"{name} ({100 * curve[0]:.1f} % at rank 1)",
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_STYLES[number % len(_STYLES)],
            linewidth=2,
            marker="o",
            markevery=[0],
        )
    axes.set(xlabel="Rank", ylabel="Matching rate (%)", title="Cumulative matching characteristic")
    axes.set_xticks([1, *range(5, 1 + max((len(curve) for curve in curves.values()), default=1), 5)])
    axes.set_ylim(top=101)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
