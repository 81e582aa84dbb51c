"""All sweeps of a storage folder."""

import time
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from reid_tune.errors import InputError
from reid_tune.journal.progress import describe_progress, read_sweep
from reid_tune.tables import format_duration, format_percent

__all__ = ["overview", "overview_table"]


def overview(storage: Path) -> list[dict[str, Any]]:
    """One line for each folder below the storage by name, from the event logs alone.

    A sweep has `name`, `state`, `stage`, `host`, `trials` that have ended, `budget`, `metric`, `best` and `trial0`
    (fractions of full-length trials, or None), `begun` and `last`, the times of the first and the last event in
    seconds since the epoch. What is no sweep, or damaged, has `name`, `state` and `problem`.

    Raises:
        InputError: there is no such folder.
    """
    if not storage.is_dir():
        raise InputError(f"there is no folder {storage.absolute()}: start a sweep, or give another --storage.")
    return [_line(folder) for folder in sorted(storage.iterdir()) if folder.is_dir()]


def _line(folder: Path) -> dict[str, Any]:
    try:
        state, progress = read_sweep(folder)
    except InputError as error:
        return {"name": folder.name, "state": "unreadable", "problem": str(error)}
    metric = state.metric
    full = state.finished()
    return {
        "name": folder.name,
        "state": progress.state,
        "stage": progress.stage,
        "host": progress.host,
        "trials": sum(trial.state != "running" for trial in state.trials),
        "budget": int(state.header.sweep["budget"]["trials"]),
        "metric": metric,
        "best": full[0].last(metric) if full else None,
        "trial0": next((trial.last(metric) for trial in full if trial.number == 0), None),
        "begun": float(state.header.time),
        "last": progress.last,
    }


def overview_table(lines: list[dict[str, Any]], now: float | None = None) -> Table:
    """The lines for people, with ages from now, in seconds since the epoch."""
    table = Table()
    for name in ("sweep", "state"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "objective", "best %", "trial 0 %", "age", "last event"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, _row(line, now or time.time())))
    return table


def _row(line: dict[str, Any], now: float) -> list[str]:
    if "problem" in line:
        return [line["name"], line["problem"]]
    values = ["" if line[key] is None else format_percent(line[key]) for key in ("best", "trial0")]
    return [
        line["name"],
        describe_progress(line["state"], line["stage"], line["host"]),
        f"{line['trials']}/{line['budget']}",
        line["metric"],
        *values,
        format_duration(now - line["begun"]),
        f"{format_duration(now - line['last'])} ago",
    ]
