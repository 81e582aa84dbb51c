"""What a sweep has found, for people and for programs."""

from pathlib import Path
from typing import Any

from rich.table import Table

from reid_tune.errors import InputError
from reid_tune.events.log import read_events
from reid_tune.sweep.journal import EVENTS
from reid_tune.sweep.state import RunState, SweepState, replay
from reid_tune.tables import metrics_table, percent

LABELS = {"plain": "ONNX", "re_ranked": "ONNX, re-ranked", "checkpoint": "checkpoint"}

__all__ = ["finals_table", "leaderboard", "load_state", "report"]


def load_state(name: str, storage: str = "runs") -> SweepState:
    """The state of a sweep by its name, running or not.

    Raises:
        InputError: there is no such sweep, or it has not begun.
    """
    path = Path(storage) / name / EVENTS
    if not path.is_file():
        known = sorted(found.parent.name for found in Path(storage).glob(f"*/{EVENTS}"))
        raise InputError(
            f"there is no sweep {name!r} in {Path(storage).absolute()}; sweeps there: {', '.join(known) or 'none'}."
        )
    state = replay(read_events(path))
    if not state.header:
        raise InputError(f"the sweep {name} has not begun: {path} is empty.")
    return state


def report(state: SweepState) -> dict[str, Any]:
    """The results as plain data; scores are fractions, nothing in it tells the time."""
    metric = _metric(state)
    full = state.finished(metric)
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
    metric = _metric(state)
    keys = list(dict.fromkeys(key for trial in state.trials for key in trial.parameters))
    table = Table(title=f"{state.header['name']}: {metric} on the hold-out, {len(state.trials)} trials")
    for name in ("trial", "state", "epoch", f"{metric} %"):
        table.add_column(name, justify="right" if name != "state" else "left")
    for key in keys:
        table.add_column(
            ".".join(key.split(".")[-2:]) if key.endswith(".name") else key.split(".")[-1], justify="right"
        )
    full = state.finished(metric)
    rest = sorted(
        (trial for trial in state.trials if trial not in full),
        key=lambda trial: (-trial.epoch, -(trial.last(metric) or 0.0), trial.number),
    )
    for trial in [*full, *rest]:
        style = "bold green" if full and trial is full[0] else ("cyan" if trial.number == 0 else None)
        table.add_row(*_row(trial, metric, keys, state), style=style)
    return table


def finals_table(state: SweepState) -> Table | None:
    """The test of the finalists; None before the stage test."""
    test = state.stages.get("test")
    if not test:
        return None
    names = {"winner": f"winner (trial {report(state)['winner']})", "trial0": "trial 0"}
    rows = {
        f"{names[finalist]}, {LABELS[kind]}": metrics
        for finalist, result in test.items()
        for kind, metrics in result.items()
        if metrics
    }
    table = metrics_table(rows)
    table.title = "test folders"
    return table


def _row(trial: RunState, metric: str, keys: list[str], state: SweepState) -> list[str]:
    base = state.header["spec"]
    value = trial.last(metric)
    return [
        f"{trial.number} (spec)" if trial.number == 0 else str(trial.number),
        trial.state,
        str(trial.epoch),
        "" if value is None else percent(value),
        *(_short(trial.parameters.get(key, base.get(key))) for key in keys),
    ]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _metric(state: SweepState) -> str:
    return str(state.header["sweep"]["objective"]["metric"])
