"""What a sweep has found, for people and for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from reid_tune.journal.costs import Cost
from reid_tune.journal.state import RunState, SweepState, trial_run
from reid_tune.search.parameters import SearchedParameter, searched_parameters
from reid_tune.search.pareto import pareto_front
from reid_tune.tables import format_count, format_percent, metrics_table

__all__ = [
    "confirm_table",
    "cost_scale",
    "test_results",
    "test_results_table",
    "format_interval",
    "leaderboard",
    "trial_label",
    "ranked_trials",
    "build_report",
    "format_value",
    "format_cost",
    "winner_number",
    "winner_run",
]

SCORE_LABELS = {
    "plain": "ONNX",
    "re_ranked": "ONNX, re-ranked",
    "tuned": "ONNX, re-ranked as tuned",
    "checkpoint": "checkpoint",
}


def build_report(state: SweepState, spent: Mapping[str, Cost] | None = None) -> dict[str, Any]:
    """The results as plain data; scores are fractions, nothing but `latency` and `spent` tells the time.

    Args:
        spent: Hours by stage, which `CostLedger.by_stage` has.
    """
    metric, costs = state.metric, state.costs
    tested: dict[str, Any] = state.stages.get("test", {})
    models = tested.get("models", {})
    return {
        "name": state.header["name"],
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "epoch": trial.epoch,
                metric: trial.last(metric),
                "costs": trial.costs,
                "parameters": trial.parameters,
                "origin": trial.origin,
                **{key: text for key in ("reason", "failure") if (text := getattr(trial, key))},
            }
            for trial in state.trials
        ],
        "winner": winner_number(state),
        "trial0": next((trial.last(metric) for trial in state.trials if trial.number == 0), None),
        "stages": list(state.stages),
        **({"front": [trial.number for trial in pareto_front(state.trials, metric, costs)]} if costs else {}),
        "confirm": state.stages.get("confirm"),
        "rerank": state.stages.get("rerank"),
        "test": {name: {k: v for k, v in own.items() if k != "latency"} for name, own in models.items()} or None,
        "looks": tested.get("looks"),
        "registered": state.stages.get("register"),
        "latency": {name: own["latency"] for name, own in models.items() if "latency" in own} or None,
        **({"spent": {stage: asdict(cost) for stage, cost in spent.items()}} if spent is not None else {}),
    }


def winner_number(state: SweepState) -> int | None:
    """The number of the trial that has won: by the stage `confirm`, before it the best of the search."""
    return trial.number if (trial := winner_run(state)) else None


def winner_run(state: SweepState) -> RunState | None:
    """The trial that has won, see `winner`."""
    if "confirm" in state.stages:
        return state.runs.get(trial_run(state.stages["confirm"]["winner"]))
    return next(iter(state.finished()), None)


def leaderboard(state: SweepState, most: int | None = None) -> Table:
    """Trials, the best first: full length before those that were cut short; not more than `most`."""
    metric = state.metric
    keys, trials = searched_parameters(state), ranked_trials(state)
    few = f", the best {most} of" if most is not None and most < len(trials) else ","
    table = Table(title=f"{state.header['name']}: {metric} on the hold-out{few} {format_count(len(trials), 'trial')}")
    for name in ("trial", "state", "epoch", f"{metric} %", *state.costs):
        table.add_column(name, justify="right" if name != "state" else "left")
    for key in keys:
        table.add_column(key.label, justify="right")
    won = winner_number(state)
    for trial in trials[:most]:
        style = "bold green" if trial.number == won else ("cyan" if trial.number == 0 else None)
        table.add_row(*_row(trial, metric, state.costs, keys), style=style)
    return table


def confirm_table(state: SweepState) -> Table | None:
    """The repeats of the best trials and of trial 0; None before the stage `confirm`."""
    if (found := state.stages.get("confirm")) is None:
        return None
    table = Table(
        title=f"confirmed by {format_count(found['repeats'], 'repeat')}, each with a seed and a hold-out of its own; "
        f"the winner is trial {found['winner']}"
    )
    for name in ("trial", f"{state.metric} %", "each", "against trial 0", "best against it"):
        table.add_column(name, justify="left" if name == "trial" else "right")
    for row in sorted(found["trials"], key=lambda row: -row["mean"]):
        style = "bold green" if row["number"] == found["winner"] else ("cyan" if row["number"] == 0 else None)
        each = " ".join(format_percent(value) for value in row["values"])
        against = (format_interval(row[key]) for key in ("against_trial0", "best_against_it"))
        table.add_row(trial_label(row["number"]), format_percent(row["mean"]), each, *against, style=style)
    return table


def format_interval(difference: dict[str, float] | None) -> str:
    """A difference in points of percent with its 95 % interval."""
    if difference is None:
        return ""
    mean, low, high = (f"{100 * difference[key]:+.1f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} .. {high})"


def cost_scale(cost: str) -> tuple[str, float]:
    """The name of a cost with its unit, and the factor to that unit."""
    return {"parameters": ("parameters, millions", 1e-6), "gflops": ("GFLOPs per image", 1.0)}.get(cost, (cost, 1.0))


def format_cost(trial: RunState, cost: str) -> str:
    """A trial's cost for a table."""
    value = trial.costs.get(cost)
    if value is None:
        return ""
    return f"{value / 1e6:.1f} M" if cost == "parameters" else f"{value:.4g}"


def trial_label(number: int) -> str:
    """A trial's number, which for trial 0 says what it is."""
    return f"{number} (spec)" if number == 0 else str(number)


def ranked_trials(state: SweepState) -> list[RunState]:
    """Trials, the best first: full length before those that were cut short."""
    full = state.finished()
    rest = [trial for trial in state.trials if trial not in full]
    return full + sorted(rest, key=lambda trial: (-trial.epoch, -(trial.last(state.metric) or 0.0), trial.number))


def test_results(state: SweepState) -> dict[str, dict[str, Any]]:
    """The metrics of the finalists on the test folders and on `extra_tests` by label; empty before the stage test."""
    names = {"winner": f"winner (trial {winner_number(state)})", "trial0": "trial 0"}
    found = dict[str, dict[str, Any]]()
    for finalist, result in state.stages.get("test", {}).get("models", {}).items():
        sets = {"": result} | {f", {name}": own for name, own in result.get("extra_tests", {}).items()}
        for more, own in sets.items():
            labels = {f"{names[finalist]}, {label}{more}": own.get(kind) for kind, label in SCORE_LABELS.items()}
            found |= {label: metrics for label, metrics in labels.items() if metrics}
    return found


def test_results_table(state: SweepState) -> Table | None:
    """The test of the finalists; None before the stage test."""
    if not (rows := test_results(state)):
        return None
    table = metrics_table(rows)
    table.title = "test folders"
    return table


def _row(trial: RunState, metric: str, costs: Sequence[str], keys: list[SearchedParameter]) -> list[str]:
    value = trial.last(metric)
    return [
        trial_label(trial.number),
        trial.state,
        str(trial.epoch),
        "" if value is None else format_percent(value),
        *(format_cost(trial, cost) for cost in costs),
        *(format_value(key.of([trial]).get(trial.number, "")) for key in keys),
    ]


def format_value(value: Any) -> str:
    """A parameter's value for a table."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
