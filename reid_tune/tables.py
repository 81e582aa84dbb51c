"""Tables of metrics, and text of numbers and times."""

import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Column, Table

__all__ = [
    "format_count",
    "format_duration",
    "format_metric",
    "format_percent",
    "format_time",
    "metrics_table",
    "print_metrics",
    "print_table",
]

# Entries of a set of metrics that have no column.
_NOT_METRICS = ("intervals", "protocol", "embeddings", "warnings")


def format_percent(value: Any) -> str:
    """Return a fraction as percent with one decimal; integers and texts unchanged."""
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


def format_count(count: int, noun: str) -> str:
    """Return a number with its noun: 1 trial, 2 trials."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def metrics_table(rows: Mapping[str, Mapping[str, Any]], *, transposed: bool = False) -> Table:
    """Return a table with one row for each set of metrics, or one column if `transposed`.

    Fractions are shown as percent, with their intervals.
    """
    names = list(dict.fromkeys(name for metrics in rows.values() for name in metrics if name not in _NOT_METRICS))
    heads = {name: name.replace("_", " ") for name in names}
    for name in names:
        if any(isinstance(metrics.get(name), float) for metrics in rows.values()):
            heads[name] = f"{name} %"
    cells = [list(heads.values()), *([format_metric(metrics, name) for name in names] for metrics in rows.values())]
    lines = [[head, *line] for head, line in zip(["", *rows], cells, strict=True)]
    lines = [list(line) for line in zip(*lines, strict=True)] if transposed else lines
    table = Table(Column("", no_wrap=True), *(Column(head, justify="right", no_wrap=True) for head in lines[0][1:]))
    for line in lines[1:]:
        table.add_row(*line)
    return table


def print_metrics(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print `metrics_table` on stdout, transposed if the terminal is too narrow for the rows."""
    wide, tall = metrics_table(rows), metrics_table(rows, transposed=True)
    print_table(tall if _terminal_width() < _width(wide) > _width(tall) else wide)


def print_table(table: Table) -> None:
    """Print a table on stdout at its full width: a terminal may wrap its lines, but no number is cut."""
    _console(_width(table)).print(table, highlight=False)


def _terminal_width() -> float:
    console = Console(file=sys.stdout)
    return console.width if console.is_terminal else math.inf


def _width(table: Table) -> int:
    return _console(10_000).measure(table).maximum


def _console(width: int) -> Console:
    # Without a height rich assumes 80 columns for a dumb terminal, whatever the width.
    return Console(file=sys.stdout, width=width, height=25)


def format_metric(metrics: Mapping[str, Any], name: str) -> str:
    """Return a metric as text, with its interval if `intervals` has one; empty if the metric is missing."""
    value = format_percent(metrics.get(name, ""))
    if name not in metrics.get("intervals", {}):
        return value
    low, high = metrics["intervals"][name]
    return f"{value} ({format_percent(low)}-{format_percent(high)})"


def format_time(seconds: float) -> str:
    """Return a time, given in seconds since the epoch, as date and time in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def format_duration(seconds: float) -> str:
    """Return a number of seconds in seconds, minutes, hours or days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"
