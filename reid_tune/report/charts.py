"""Charts of a sweep, as inline SVG."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.formatting import cost_axis, shorten, trial_label
from reid_tune.report.summary import winner_run
from reid_tune.report.svg import COLOURS, render_svg
from reid_tune.search.parameters import SearchedParameter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confirm_chart", "curves_chart", "front_chart", "history_chart", "scatter_chart"]

_BEST_STYLES = (
    ("blue", "-", "o"),
    ("orange", (0, (5, 2)), "s"),
    ("green", (0, (4, 1, 1, 1)), "^"),
    ("pink", ":", "D"),
)
_MAX_FAINT_CURVES = 60
# Marker of each kind of trial, drawn in this order.
_MARKERS: dict[str, dict[str, Any]] = {
    "stopped": {"marker": "v", "markersize": 5, "color": COLOURS["faint"], "markerfacecolor": "none"},
    "failed": {"marker": "x", "markersize": 6, "color": COLOURS["pink"]},
    "finished": {"marker": "o", "markersize": 5, "color": COLOURS["blue"]},
    "baseline": {"marker": "D", "markersize": 7, "color": COLOURS["ink"]},
    "best": {"marker": "*", "markersize": 13, "color": COLOURS["orange"]},
}
# Marker and line of each repeat.
_REPEAT_STYLES = (
    ("o", "-"),
    ("s", (0, (5, 2))),
    ("^", ":"),
    ("D", (0, (4, 1, 1, 1))),
    ("v", (0, (2, 1))),
    ("P", (0, (8, 2))),
)


def history_chart(state: SweepState, metric: str) -> str:
    """Return a chart of each trial's score in the order of the trials, and of the best full-length score so far."""

    def draw(axes: "Axes") -> None:
        _draw_trials(axes, state, metric, lambda trial: trial.number)
        best, steps = 0.0, []
        for trial in sorted(state.finished(), key=lambda trial: trial.number):
            best = max(best, _percent(trial, metric))
            steps.append((trial.number, best))
        if steps:
            steps.append((len(state.trials) - 1, best))
            axes.step(*zip(*steps, strict=True), where="post", color=COLOURS["blue"], linewidth=1.5, zorder=1)
        failed = [trial.number for trial in state.trials if trial.state == "failed" and trial.last(metric) is None]
        bottom = axes.get_xaxis_transform()
        axes.plot(failed, [0.03] * len(failed), transform=bottom, linestyle="none", **_MARKERS["failed"])
        axes.set(xlabel="trial", ylabel=f"{metric} %")
        axes.locator_params(axis="x", integer=True)

    return render_svg(draw, f"{metric} on the validation split by trial, and the best so far")


def curves_chart(state: SweepState, metric: str, rungs: Sequence[int]) -> str:
    """Return a chart of the score by epoch: the best trials and trial 0, all others faint; rungs as vertical lines."""
    winner = winner_run(state)
    leaders = [*([winner] if winner else []), *state.finished()]
    best = [trial for index, trial in enumerate(leaders) if trial.number != 0 and trial not in leaders[:index]]
    best = best[: len(_BEST_STYLES)]
    baseline = [trial for trial in state.trials if trial.number == 0]
    others = [trial for trial in state.trials if trial not in best + baseline][-_MAX_FAINT_CURVES:]

    def draw(axes: "Axes") -> None:
        for rung in rungs:
            axes.axvline(rung, color=COLOURS["faint"], linestyle=(0, (1, 2)), linewidth=1.2, zorder=0)
        for trial in others:
            axes.plot(*_curve(trial, metric), color=COLOURS["faint"], alpha=0.35, linewidth=0.8, zorder=1)
        for trial, (colour, style, marker) in zip(best, _BEST_STYLES, strict=False):
            epochs, values = _curve(trial, metric)
            line: dict[str, Any] = {"color": COLOURS[colour], "linestyle": style, "label": f"trial {trial.number}"}
            axes.plot(epochs, values, marker=marker, markersize=3.5, markevery=max(1, len(epochs) // 6), **line)
        for trial in baseline:
            axes.plot(*_curve(trial, metric), color=COLOURS["ink"], linewidth=2, label="trial 0", zorder=3)
        axes.set(xlabel="epoch", ylabel=f"{metric} %")
        axes.locator_params(axis="x", integer=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, handlelength=2.5, labelspacing=0.25)

    return render_svg(draw, f"{metric} on the validation split by epoch")


def front_chart(state: SweepState, front: Sequence[RunState]) -> str:
    """Return a chart of each full-length trial's score over its first cost, with the Pareto front."""
    metric, cost = state.metric, state.costs[0]
    label, scale = cost_axis(cost)

    def x_of(trial: RunState) -> float | None:
        return scale * trial.costs[cost] if trial.state == "finished" and cost in trial.costs else None

    def draw(axes: "Axes") -> None:
        _draw_trials(axes, state, metric, x_of)
        points = sorted((x_of(trial) or 0.0, _percent(trial, metric)) for trial in front)
        ring: dict[str, Any] = {"markersize": 12, "markerfacecolor": "none", "color": COLOURS["green"], "zorder": 1}
        # With further costs the front is not a line in this plane.
        style = "-" if len(state.costs) == 1 else "none"
        axes.step(*zip(*points, strict=True), where="post", marker="o", linestyle=style, linewidth=1.5, **ring)
        for trial in front:
            point = (x_of(trial) or 0.0, _percent(trial, metric))
            axes.annotate(str(trial.number), point, (7, 5), textcoords="offset points", fontsize=9)
        axes.margins(0.12)
        axes.set(xlabel=label, ylabel=f"{metric} %")

    return render_svg(draw, f"{metric} on the validation split by {cost}, with the Pareto front")


def scatter_chart(parameter: SearchedParameter, state: SweepState, metric: str) -> str:
    """Return a chart of each trial's score over one searched parameter."""
    trials = state.trials
    is_numeric = parameter.is_numeric(trials)
    values, names = parameter.values_by_trial(trials), parameter.value_names(trials)

    def x_of(trial: RunState) -> float | None:
        value = values.get(trial.number)
        if trial.number not in values or is_numeric:
            return value
        # Trials of one value are spread out side by side.
        return names.index(json.dumps(value)) + 0.36 * ((trial.number * 0.618) % 1 - 0.5)

    def draw(axes: "Axes") -> None:
        _draw_trials(axes, state, metric, x_of)
        axes.set(xlabel=parameter.label, ylabel=f"{metric} %")
        if is_numeric and parameter.is_logarithmic:
            _set_log_scale(axes)
            axes.set_xlabel(f"{parameter.label} (log)")
        elif is_numeric and not any(isinstance(value, float) for value in values.values()):
            axes.locator_params(axis="x", integer=True)
        elif not is_numeric:
            ticks = range(0, len(names), -(-len(names) // 6))
            axes.set_xticks(ticks, [shorten(_unquoted(names[tick]), 60 // max(4, len(ticks))) for tick in ticks])
            axes.set_xlim(-0.5, len(names) - 0.5)

    return render_svg(draw, f"{metric} on the validation split by {parameter.key}")


def confirm_chart(confirm_result: dict[str, Any], metric: str) -> str:
    """Return a chart of each candidate's repeats and their mean; repeats on the same validation split are joined.

    Args:
        confirm_result: Result of the stage `confirm`.
    """
    rows = sorted(confirm_result["trials"], key=lambda row: (-row["mean"], row["number"]))
    winner = confirm_result["winner"]

    def draw(axes: "Axes") -> None:
        for repeat in range(confirm_result["repeats"]):
            marker, style = _REPEAT_STYLES[repeat % len(_REPEAT_STYLES)]
            line: dict[str, Any] = {"color": COLOURS["blue"], "linestyle": style, "linewidth": 0.8, "marker": marker}
            values = [100 * row["values"][repeat] for row in rows]
            axes.plot(values, markersize=5, markerfacecolor="none", label=f"repeat {repeat + 1}", **line)
        for column, row in enumerate(rows):
            mean = 100 * row["mean"]
            colour, width = ("orange", 4.0) if row["number"] == winner else ("ink", 2.0)
            axes.plot([column - 0.28, column + 0.28], [mean, mean], color=COLOURS[colour], linewidth=width, zorder=1)
            axes.annotate(f"{mean:.1f}", (column + 0.31, mean), va="center", fontsize=9)
        names = [trial_label(row["number"]) + ("\nwinner" if row["number"] == winner else "") for row in rows]
        axes.set_xticks(range(len(rows)), names)
        axes.set(xlim=(-0.5, len(rows) - 0.2), xlabel="trial", ylabel=f"{metric} %")
        # Above the axes, where no point can be.
        axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return render_svg(draw, f"{metric} of the repeated trials on each validation split, and their means")


def _draw_trials(axes: "Axes", state: SweepState, metric: str, x_of: Callable[[RunState], float | None]) -> None:
    """Draw the trials that have an x and a score, with the markers of the page's legend."""
    best = winner_run(state)
    points: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _MARKERS}
    for trial in state.trials:
        x = x_of(trial)
        if x is None or trial.last(metric) is None:
            continue
        kind = "best" if trial is best else "baseline" if trial.number == 0 else trial.state
        points[kind if kind in points else "stopped"].append((x, _percent(trial, metric)))
    for kind, pairs in points.items():
        axes.plot([x for x, _ in pairs], [y for _, y in pairs], linestyle="none", **_MARKERS[kind])


def _set_log_scale(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _curve(trial: RunState, metric: str) -> tuple[list[int], list[float]]:
    """Return the epochs that have the metric, and its values in percent."""
    epochs = [epoch for epoch, metrics in sorted(trial.epochs.items()) if metric in metrics]
    return epochs, [100 * trial.epochs[epoch][metric] for epoch in epochs]


def _percent(trial: RunState, metric: str) -> float:
    return 100 * (trial.last(metric) or 0.0)


def _unquoted(name: str) -> str:
    value: Any = json.loads(name)
    return value if isinstance(value, str) else name
