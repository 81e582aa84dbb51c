"""Importances of the searched keys, as a sentence and as inline SVG."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reid_tune.report.formatting import shorten
from reid_tune.report.svg import COLOURS, HEIGHT, render_svg
from reid_tune.search.importance import MIN_TRIALS, Importances

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["importance_sentence", "importances_caption", "importances_chart"]

_MAX_KEYS = 20  # in the chart
_LEAST_INTERACTION = 0.02  # lower end of the interval of an interaction that is named


def importance_sentence(importances: Importances, metric: str, labels: Mapping[str, str]) -> str:
    """Return the shares of the keys that stand out from noise, and of their interactions.

    Args:
        importances: Importances of one key or more.
        metric: Name of the score.
        labels: Label of each key.
    """
    subject = f"importances for the variation of {metric} over the space, with 90 % intervals"
    clear = [key for key in importances.keys if key.is_clear]
    if not clear:
        return f"{subject}: no key stands out from noise yet"
    shares = [
        f"{labels[key.key]} {_percent(key.total)} % ({_percent(key.low)} .. {_percent(key.high)})" for key in clear
    ]
    names = {key.key for key in clear}
    shares += [
        f"{_percent(pair.interaction)} % in the interaction of {labels[pair.keys[0]]} and {labels[pair.keys[1]]}"
        for pair in importances.pairs
        if names.issuperset(pair.keys) and pair.low >= _LEAST_INTERACTION
    ]
    others = [labels[key.key] for key in importances.keys if not key.is_clear]
    return f"{subject}: {', '.join(shares)}" + (f"; others may be noise: {', '.join(others)}" if others else "")


def importances_caption(importances: Importances | None, metric: str) -> str:
    """Return the caption of the chart, which says what is missing without one."""
    if importances is None:
        return f"Importances need {MIN_TRIALS} trials with a score and a searched key; fewer would show noise."
    return (
        f"Importances for the variation of {metric} over the space: alone (strong) and in interactions (faint), with "
        "90 % intervals; grey: may be noise"
    )


def importances_chart(importances: Importances, labels: Mapping[str, str]) -> str:
    """Return a bar chart of the total shares with their intervals.

    Args:
        importances: Importances of one key or more.
        labels: Label of each key.
    """
    keys = list(reversed(importances.keys[:_MAX_KEYS]))

    def draw(axes: "Axes") -> None:
        for row, key in enumerate(keys):
            colour = COLOURS["blue" if key.is_clear else "faint"]
            axes.barh(row, 100 * key.alone, color=colour, height=0.6)
            axes.barh(row, 100 * (key.total - key.alone), left=100 * key.alone, color=colour, height=0.6, alpha=0.4)
            axes.plot([100 * key.low, 100 * key.high], [row, row], color=COLOURS["ink"], linewidth=1.2)
            axes.annotate(
                f"{_percent(key.total)} %", (100 * key.high, row), (4, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(keys)), [shorten(labels[key.key], 22) for key in keys])
        axes.set(xlim=(0, 118 * max(key.high for key in keys)), ylim=(-0.6, len(keys) - 0.4))
        axes.set_xticks([])

    return render_svg(draw, "importances of the searched parameters", max(HEIGHT, 0.6 + 0.28 * len(keys)))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
