"""What a sweep has found, for people and for programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from reid_tune.errors import InputError
from reid_tune.sweep.journal import EVENTS
from reid_tune.sweep.progress import read_sweep
from reid_tune.sweep.report.searched import Searched, searched
from reid_tune.sweep.search.pareto import front
from reid_tune.sweep.state import RunState, SweepState
from reid_tune.tables import metrics_table, percent

__all__ = [
    "confirm_table",
    "finals",
    "finals_table",
    "interval",
    "leaderboard",
    "load_state",
    "named",
    "ordered",
    "report",
    "short",
    "sweep_folder",
    "winner",
]

LABELS = {
    "plain": "ONNX",
    "re_ranked": "ONNX, re-ranked",
    "tuned": "ONNX, re-ranked as tuned",
    "checkpoint": "checkpoint",
}


def sweep_folder(name: str, storage: str = "runs") -> Path:
    """The folder of a sweep by its name.

    Raises:
        InputError: there is no such sweep.
    """
    folder = Path(storage) / name
    if not (folder / EVENTS).is_file():
        known = sorted(found.parent.name for found in Path(storage).glob(f"*/{EVENTS}"))
        raise InputError(
            f"there is no sweep {name!r} in {Path(storage).absolute()}; sweeps there: {', '.join(known) or 'none'}."
        )
    return folder


def load_state(name: str, storage: str = "runs") -> SweepState:
    """The state of a sweep by its name, running or not.

    Raises:
        InputError: there is no such sweep, it has not begun, or its log is damaged.
    """
    return read_sweep(sweep_folder(name, storage))[0]


def report(state: SweepState) -> dict[str, Any]:
    """The results as plain data; scores are fractions, nothing in it tells the time."""
    metric, costs, tested = state.metric, state.costs, state.stages.get("test")
    return {
        "name": state.header["name"],
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "epoch": trial.epoch,
                metric: trial.last(metric),
                **trial.costs,
                "parameters": trial.parameters,
                "origin": trial.origin,
                **{key: text for key in ("reason", "failure") if (text := getattr(trial, key))},
            }
            for trial in state.trials
        ],
        "winner": winner(state),
        "trial0": next((trial.last(metric) for trial in state.trials if trial.number == 0), None),
        "stages": list(state.stages),
        **({"front": [trial.number for trial in front(state.trials, metric, costs)]} if costs else {}),
        "confirm": state.stages.get("confirm"),
        "rerank": state.stages.get("rerank"),
        "test": tested["models"] if tested else None,
        "looks": tested["looks"] if tested else None,
        "registered": state.stages.get("register"),
    }


def winner(state: SweepState) -> int | None:
    """The number of the trial that has won: by the stage `confirm`, before it the best of the search."""
    if "confirm" in state.stages:
        return int(state.stages["confirm"]["winner"])
    return next((trial.number for trial in state.finished()), None)


def leaderboard(state: SweepState) -> Table:
    """Trials, the best first: full length before those that were cut short."""
    metric = state.metric
    keys = searched(state)
    table = Table(title=f"{state.header['name']}: {metric} on the hold-out, {len(state.trials)} trials")
    for name in ("trial", "state", "epoch", f"{metric} %", *state.costs):
        table.add_column(name, justify="right" if name != "state" else "left")
    for key in keys:
        table.add_column(key.label, justify="right")
    won = winner(state)
    for trial in ordered(state):
        style = "bold green" if trial.number == won else ("cyan" if trial.number == 0 else None)
        table.add_row(*_row(trial, metric, state.costs, keys), style=style)
    return table


def confirm_table(state: SweepState) -> Table | None:
    """The repeats of the best trials and of trial 0; None before the stage `confirm`."""
    if (found := state.stages.get("confirm")) is None:
        return None
    table = Table(
        title=f"confirmed with {found['repeats']} other seeds and hold-outs; the winner is trial {found['winner']}"
    )
    for name in ("trial", f"{state.metric} %", "each", "against trial 0", "best against it"):
        table.add_column(name, justify="left" if name == "trial" else "right")
    for row in sorted(found["trials"], key=lambda row: -row["mean"]):
        style = "bold green" if row["number"] == found["winner"] else ("cyan" if row["number"] == 0 else None)
        each = " ".join(percent(value) for value in row["values"])
        against = (interval(row[key]) for key in ("against_trial0", "best_against_it"))
        table.add_row(named(row["number"]), percent(row["mean"]), each, *against, style=style)
    return table


def interval(difference: dict[str, float] | None) -> str:
    """A difference in points of percent with its 95 % interval."""
    if difference is None:
        return ""
    mean, low, high = (f"{100 * difference[key]:+.1f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} .. {high})"


def named(number: int) -> str:
    """A trial's number, which for trial 0 says what it is."""
    return f"{number} (spec)" if number == 0 else str(number)


def ordered(state: SweepState) -> list[RunState]:
    """Trials, the best first: full length before those that were cut short."""
    full = state.finished()
    rest = [trial for trial in state.trials if trial not in full]
    return full + sorted(rest, key=lambda trial: (-trial.epoch, -(trial.last(state.metric) or 0.0), trial.number))


def finals(state: SweepState) -> dict[str, dict[str, Any]]:
    """The metrics of the finalists on the test folders by label; empty before the stage test."""
    names = {"winner": f"winner (trial {winner(state)})", "trial0": "trial 0"}
    return {
        f"{names[finalist]}, {label}": result[kind]
        for finalist, result in state.stages.get("test", {}).get("models", {}).items()
        for kind, label in LABELS.items()
        if result.get(kind)
    }


def finals_table(state: SweepState) -> Table | None:
    """The test of the finalists; None before the stage test."""
    if not (rows := finals(state)):
        return None
    table = metrics_table(rows)
    table.title = "test folders"
    return table


def _row(trial: RunState, metric: str, costs: Sequence[str], keys: list[Searched]) -> list[str]:
    value = trial.last(metric)
    return [
        named(trial.number),
        trial.state,
        str(trial.epoch),
        "" if value is None else percent(value),
        *(f"{trial.costs[cost]:.3g}" for cost in costs),
        *(short(key.of([trial]).get(trial.number, "")) for key in keys),
    ]


def short(value: Any) -> str:
    """A parameter's value for a table."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
