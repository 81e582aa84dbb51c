"""Histogram plot of the distances between pairs of images."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from reid_tune.evaluation.plots import make_figure
from reid_tune.evaluation.thresholds import Threshold
from reid_tune.files import atomic_path

__all__ = ["distance_plot"]

# Okabe and Ito's colours as in the other pictures; hatches and lines tell the kinds apart without any.
_KINDS = (("same identity", "#009E73", "-", "///"), ("different identities", "#D55E00", "--", "..."))

_FEW = 1000  # with fewer pairs of a kind, wider bins are easier to read


def distance_plot(histograms: tuple[np.ndarray, np.ndarray], threshold: Threshold | None, path: Path | str) -> None:
    """Draw the distributions of distances within and between identities into a .png, .pdf or .svg file.

    Args:
        histograms: Of squared Euclidean distances, see `Pairs`.
        threshold: Drawn as a line with its rates; None for no line.

    Raises:
        InputError: the folder cannot be written.
    """
    counts, edges = histograms
    if counts.sum(axis=1).min() < _FEW:
        counts, edges = counts.reshape(2, -1, 4).sum(axis=2), edges[::4]
    figure, axes = make_figure(6.4, 4.8)
    for histogram, (name, colour, style, hatch) in zip(counts, _KINDS, strict=True):
        axes.stairs(
            histogram / max(histogram.sum(), 1) / edges[1],
            edges,
            label=f"{name} ({histogram.sum():,} pairs)",
            fill=True,
            facecolor=f"{colour}40",
            edgecolor=colour,
            linestyle=style,
            linewidth=1.5,
            hatch=hatch,
        )
    if threshold:
        axes.axvline(threshold.squared_distance, color="black", linestyle="-.", linewidth=2, label=_label(threshold))
    occupied = np.flatnonzero(counts.any(axis=0))
    if len(occupied):
        margin = edges[-1] / 50
        axes.set_xlim(max(edges[occupied[0]] - margin, 0), edges[occupied[-1] + 1] + margin)
    axes.set(xlabel="Squared Euclidean distance", ylabel="Density", title="Distances of L2-normalised features")
    axes.secondary_xaxis("top", functions=(_cosine, _distance)).set_xlabel("Cosine similarity")
    figure.legend(loc="outside lower center", handlelength=4, frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _cosine(distances: ArrayLike) -> np.ndarray:
    return 1 - np.asarray(distances) / 2


def _distance(cosines: ArrayLike) -> np.ndarray:
    return 2 - 2 * np.asarray(cosines)


def _label(threshold: Threshold) -> str:
    return (
        f"threshold {threshold.squared_distance:.5g} (cosine {threshold.cosine:.5g}): "
        f"FMR {100 * threshold.fmr:.3g} %, FNMR {100 * threshold.fnmr:.3g} %"
    )
