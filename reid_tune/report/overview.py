"""Overview of all sweeps in a storage folder."""

import time
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from reid_tune.errors import InputError
from reid_tune.journal.progress import describe_progress, read_sweep
from reid_tune.report.formatting import format_score
from reid_tune.report.summary import baseline_score
from reid_tune.tables import format_duration

__all__ = ["list_sweeps", "sweeps_table"]


def list_sweeps(storage: Path) -> list[dict[str, Any]]:
    """Return an entry for each folder in the storage, by name, from the event logs alone.

    A sweep has `name`, `state`, `stage`, `host`, `trials` (number of those that do not run), `budget`, `metric`, `best`
    and `trial0` (scores of full-length trials as fractions, or None), `begun` and `last` (times of the first and the
    last event in seconds since the epoch). A folder without a readable sweep has `name`, `state` and `problem`.

    Raises:
        InputError: The folder does not exist.
    """
    if not storage.is_dir():
        raise InputError(f"the folder {storage.absolute()} does not exist: start a sweep, or give another --storage.")
    return [_entry(folder) for folder in sorted(storage.iterdir()) if folder.is_dir()]


def _entry(folder: Path) -> dict[str, Any]:
    try:
        state, progress = read_sweep(folder)
    except InputError as error:
        return {"name": folder.name, "state": "unreadable", "problem": str(error)}
    best = next(iter(state.finished()), None)
    return {
        "name": folder.name,
        "state": progress.state,
        "stage": progress.stage,
        "host": progress.host,
        "trials": sum(trial.state != "running" for trial in state.trials),
        "budget": int(state.header.sweep["budget"]["trials"]),
        "metric": state.metric,
        "best": best.last(state.metric) if best else None,
        "trial0": baseline_score(state),
        "begun": float(state.header.time),
        "last": progress.last,
    }


def sweeps_table(entries: list[dict[str, Any]], now: float | None = None) -> Table:
    """Return a table of the entries of `list_sweeps`.

    Args:
        now: Time from which ages are counted, in seconds since the epoch; the current time if None.
    """
    table = Table()
    for name in ("sweep", "state"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "objective", "best %", "trial 0 %", "age", "last event"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(*map(Text, _cells(entry, now or time.time())))
    return table


def _cells(entry: dict[str, Any], now: float) -> list[str]:
    if "problem" in entry:
        return [entry["name"], entry["problem"]]
    return [
        entry["name"],
        describe_progress(entry["state"], entry["stage"], entry["host"]),
        f"{entry['trials']}/{entry['budget']}",
        entry["metric"],
        *(format_score(entry[key]) for key in ("best", "trial0")),
        format_duration(now - entry["begun"]),
        f"{format_duration(now - entry['last'])} ago",
    ]
