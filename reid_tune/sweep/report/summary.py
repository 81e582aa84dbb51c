"""What a sweep has found, for people and for programs."""

from pathlib import Path
from typing import Any

from rich.table import Table

from reid_tune.errors import InputError
from reid_tune.sweep.journal import EVENTS
from reid_tune.sweep.progress import read_sweep
from reid_tune.sweep.report.searched import Searched, searched
from reid_tune.sweep.state import RunState, SweepState
from reid_tune.tables import metrics_table, percent

__all__ = [
    "finals",
    "finals_table",
    "leaderboard",
    "load_state",
    "ordered",
    "report",
    "short",
    "sweep_folder",
]

LABELS = {"plain": "ONNX", "re_ranked": "ONNX, re-ranked", "checkpoint": "checkpoint"}


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
    metric = state.metric
    full = state.finished()
    return {
        "name": state.header["name"],
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "epoch": trial.epoch,
                metric: trial.last(metric),
                "parameters": trial.parameters,
                **({"reason": trial.reason} if trial.reason else {}),
            }
            for trial in state.trials
        ],
        "winner": full[0].number if full else None,
        "trial0": next((trial.last(metric) for trial in state.trials if trial.number == 0), None),
        "stages": list(state.stages),
        "test": state.stages.get("test"),
        "registered": state.stages.get("register"),
    }


def leaderboard(state: SweepState) -> Table:
    """Trials, the best first: full length before those that were cut short."""
    metric = state.metric
    keys = searched(state)
    table = Table(title=f"{state.header['name']}: {metric} on the hold-out, {len(state.trials)} trials")
    for name in ("trial", "state", "epoch", f"{metric} %"):
        table.add_column(name, justify="right" if name != "state" else "left")
    for key in keys:
        table.add_column(key.label, justify="right")
    full = state.finished()
    for trial in ordered(state):
        style = "bold green" if full and trial is full[0] else ("cyan" if trial.number == 0 else None)
        table.add_row(*_row(trial, metric, keys), style=style)
    return table


def ordered(state: SweepState) -> list[RunState]:
    """Trials, the best first: full length before those that were cut short."""
    full = state.finished()
    rest = [trial for trial in state.trials if trial not in full]
    return full + sorted(rest, key=lambda trial: (-trial.epoch, -(trial.last(state.metric) or 0.0), trial.number))


def finals(state: SweepState) -> dict[str, dict[str, Any]]:
    """The metrics of the finalists on the test folders by label; empty before the stage test."""
    names = {"winner": f"winner (trial {report(state)['winner']})", "trial0": "trial 0"}
    return {
        f"{names[finalist]}, {label}": result[kind]
        for finalist, result in (state.stages.get("test") or {}).items()
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


def _row(trial: RunState, metric: str, keys: list[Searched]) -> list[str]:
    value = trial.last(metric)
    return [
        f"{trial.number} (spec)" if trial.number == 0 else str(trial.number),
        trial.state,
        str(trial.epoch),
        "" if value is None else percent(value),
        *(short(key.of([trial]).get(trial.number, "")) for key in keys),
    ]


def short(value: Any) -> str:
    """A parameter's value for a table."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
