"""Charts of a sweep."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.summary import cost_scale, winner_run
from reid_tune.report.svg import COLOURS, HEIGHT, render_svg
from reid_tune.search.parameters import SearchedParameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "curves_chart",
    "front_chart",
    "history_chart",
    "importances_chart",
    "scatter_chart",
]

_BEST = (("blue", "-", "o"), ("orange", (0, (5, 2)), "s"), ("green", (0, (4, 1, 1, 1)), "^"), ("pink", ":", "D"))
_OTHERS = 60  # faint curves at most
# The kinds of trials, the later above the earlier.
_MARKS: dict[str, dict[str, Any]] = {
    "stopped": {"marker": "v", "markersize": 5, "color": COLOURS["faint"], "markerfacecolor": "none"},
    "failed": {"marker": "x", "markersize": 6, "color": COLOURS["pink"]},
    "finished": {"marker": "o", "markersize": 5, "color": COLOURS["blue"]},
    "zero": {"marker": "D", "markersize": 7, "color": COLOURS["ink"]},
    "best": {"marker": "*", "markersize": 13, "color": COLOURS["orange"]},
}


def history_chart(state: SweepState, metric: str) -> str:
    """The objective of each trial in their order, and the best full-length one so far."""

    def draw(axes: "Axes") -> None:
        _points(axes, state, metric, lambda trial: trial.number)
        full = sorted(state.finished(), key=lambda trial: trial.number)
        best, steps = 0.0, []
        for trial in full:
            best = max(best, _percent(trial, metric))
            steps.append((trial.number, best))
        if steps:
            steps.append((len(state.trials) - 1, best))
            axes.step(*zip(*steps, strict=True), where="post", color=COLOURS["blue"], linewidth=1.5, zorder=1)
        failed = [trial.number for trial in state.trials if trial.state == "failed" and trial.last(metric) is None]
        foot = axes.get_xaxis_transform()
        axes.plot(failed, [0.03] * len(failed), transform=foot, linestyle="none", **_MARKS["failed"])
        axes.set(xlabel="trial", ylabel=f"{metric} %")
        axes.locator_params(axis="x", integer=True)

    return render_svg(draw, f"{metric} on the hold-out by trial, and the best so far")


def curves_chart(state: SweepState, metric: str, rungs: Sequence[int]) -> str:
    """The objective by epoch: the best few against trial 0, all others faint; rungs as upright lines."""
    ahead = [*([won] if (won := winner_run(state)) else []), *state.finished()]
    best = [trial for at, trial in enumerate(ahead) if trial.number != 0 and trial not in ahead[:at]][: len(_BEST)]
    zero = [trial for trial in state.trials if trial.number == 0]
    others = [trial for trial in state.trials if trial not in best + zero][-_OTHERS:]

    def draw(axes: "Axes") -> None:
        for rung in rungs:
            axes.axvline(rung, color=COLOURS["faint"], linestyle=(0, (1, 2)), linewidth=1.2, zorder=0)
        for trial in others:
            axes.plot(*_curve(trial, metric), color=COLOURS["faint"], alpha=0.35, linewidth=0.8, zorder=1)
        for trial, (colour, style, marker) in zip(best, _BEST, strict=False):
            epochs, values = _curve(trial, metric)
            axes.plot(
                epochs,
                values,
                color=COLOURS[colour],
                linestyle=style,
                marker=marker,
                markersize=3.5,
                markevery=max(1, len(epochs) // 6),
                label=f"trial {trial.number}",
            )
        for trial in zero:
            axes.plot(*_curve(trial, metric), color=COLOURS["ink"], linewidth=2, label="trial 0", zorder=3)
        axes.set(xlabel="epoch", ylabel=f"{metric} %")
        axes.locator_params(axis="x", integer=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, handlelength=2.5, labelspacing=0.25)

    return render_svg(draw, f"{metric} on the hold-out by epoch")


def front_chart(state: SweepState, best: Sequence[RunState]) -> str:
    """The score of each full-length trial over its first cost, with the Pareto front.

    Args:
        best: The front.
    """
    metric, cost = state.metric, state.costs[0]
    unit, scale = cost_scale(cost)

    def place(trial: RunState) -> float | None:
        return scale * trial.costs[cost] if trial.state == "finished" and cost in trial.costs else None

    def draw(axes: "Axes") -> None:
        _points(axes, state, metric, place)
        spots = sorted((place(trial) or 0.0, _percent(trial, metric)) for trial in best)
        front: dict[str, Any] = {"markersize": 12, "markerfacecolor": "none", "color": COLOURS["green"], "zorder": 1}
        # With further costs the front is no line in this plane.
        style = "-" if len(state.costs) == 1 else "none"
        axes.step(*zip(*spots, strict=True), where="post", marker="o", linestyle=style, linewidth=1.5, **front)
        for trial in best:
            spot = (place(trial) or 0.0, _percent(trial, metric))
            axes.annotate(str(trial.number), spot, (7, 5), textcoords="offset points", fontsize=9)
        axes.margins(0.12)
        axes.set(xlabel=unit, ylabel=f"{metric} %")

    return render_svg(draw, f"{metric} on the hold-out by {cost}, with the Pareto front")


def importances_chart(shares: Mapping[str, float], labels: Mapping[str, str]) -> str:
    """A bar for each searched key."""

    def draw(axes: "Axes") -> None:
        keys = list(reversed(list(shares)))
        bars = axes.barh(range(len(keys)), [100 * shares[key] for key in keys], color=COLOURS["blue"], height=0.6)
        axes.bar_label(bars, fmt=lambda value: f"{value:.0f} %", padding=3)
        axes.set_yticks(range(len(keys)), [_cut(labels[key], 22) for key in keys])
        axes.set(xlabel="share of what sets the better half apart", xlim=(0, 118 * max(shares.values())))
        axes.set_xticks([])

    return render_svg(draw, "importances of the searched parameters", max(HEIGHT, 0.6 + 0.28 * len(shares)))


def scatter_chart(key: SearchedParameter, state: SweepState, metric: str) -> str:
    """The objective of each trial over one searched parameter."""
    trials = state.trials
    numeric = key.is_numeric(trials)
    values, names = key.values_by_trial(trials), key.value_names(trials)

    def place(trial: RunState) -> float | None:
        value = values.get(trial.number)
        if trial.number not in values or numeric:
            return value
        # Trials of one value stand side by side.
        return names.index(json.dumps(value)) + 0.36 * ((trial.number * 0.618) % 1 - 0.5)

    def draw(axes: "Axes") -> None:
        _points(axes, state, metric, place)
        axes.set(xlabel=key.label, ylabel=f"{metric} %")
        if numeric and key.is_logarithmic:
            _log_scale(axes)
            axes.set_xlabel(f"{key.label} (log)")
        elif numeric and not any(isinstance(value, float) for value in values.values()):
            axes.locator_params(axis="x", integer=True)
        elif not numeric:
            shown = range(0, len(names), -(-len(names) // 6))
            axes.set_xticks(shown, [_cut(_text(names[at]), 60 // max(4, len(shown))) for at in shown])
            axes.set_xlim(-0.5, len(names) - 0.5)

    return render_svg(draw, f"{metric} on the hold-out by {key.key}")


def _points(axes: "Axes", state: SweepState, metric: str, place: Callable[[RunState], float | None]) -> None:
    """The trials that have a value, marked as the page's legend says."""
    best = winner_run(state)
    kinds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _MARKS}
    for trial in state.trials:
        x = place(trial)
        if x is None or trial.last(metric) is None:
            continue
        kind = "best" if trial is best else "zero" if trial.number == 0 else trial.state
        kinds[kind if kind in kinds else "stopped"].append((x, _percent(trial, metric)))
    for kind, points in kinds.items():
        axes.plot([x for x, _ in points], [y for _, y in points], linestyle="none", **_MARKS[kind])


def _log_scale(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _curve(trial: RunState, metric: str) -> tuple[list[int], list[float]]:
    found = [(epoch, 100 * metrics[metric]) for epoch, metrics in sorted(trial.epochs.items()) if metric in metrics]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _percent(trial: RunState, metric: str) -> float:
    return 100 * (trial.last(metric) or 0.0)


def _text(name: str) -> str:
    value: Any = json.loads(name)
    return value if isinstance(value, str) else name


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
