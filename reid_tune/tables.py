"""Tables of metrics for people."""

import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Column, Table

__all__ = [
    "format_metric",
    "format_count",
    "format_duration",
    "metrics_table",
    "format_time",
    "format_percent",
    "print_metrics",
    "print_table",
]

# What stands beside the metrics and has no column of its own.
_BESIDE = ("intervals", "protocol")


def format_percent(value: Any) -> str:
    """A fraction in percent with one decimal; whole numbers as they are."""
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


def format_count(count: int, noun: str) -> str:
    """A number of things: 1 trial, 2 trials."""
    return f"{count} {noun}{'s' * (count != 1)}"


def metrics_table(rows: Mapping[str, Mapping[str, Any]], *, upright: bool = False) -> Table:
    """One row for each set of metrics, or one column if `upright`; fractions in percent, with their intervals."""
    names = list(dict.fromkeys(name for metrics in rows.values() for name in metrics if name not in _BESIDE))
    heads = {name: name.replace("_", " ") for name in names}
    for name in names:
        if any(isinstance(metrics.get(name), float) for metrics in rows.values()):
            heads[name] = f"{name} %"
    cells = [list(heads.values()), *([format_metric(metrics, name) for name in names] for metrics in rows.values())]
    lines = [[head, *line] for head, line in zip(["", *rows], cells, strict=True)]
    lines = [list(line) for line in zip(*lines, strict=True)] if upright else lines
    table = Table(Column("", no_wrap=True), *(Column(head, justify="right", no_wrap=True) for head in lines[0][1:]))
    for line in lines[1:]:
        table.add_row(*line)
    return table


def print_metrics(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print `metrics_table` on stdout, upright where the terminal is too narrow for the other way."""
    wide, tall = metrics_table(rows), metrics_table(rows, upright=True)
    print_table(tall if _room() < _width(wide) > _width(tall) else wide)


def print_table(table: Table) -> None:
    """Print a table on stdout, as wide as it needs: a terminal may break its lines, but no number is cut."""
    _console(_width(table)).print(table, highlight=False)


def _room() -> float:
    console = Console(file=sys.stdout)
    return console.width if console.is_terminal else math.inf


def _width(table: Table) -> int:
    return _console(10_000).measure(table).maximum


def _console(width: int) -> Console:
    # Without a height rich takes a dumb terminal for 80 columns, whatever the width.
    return Console(file=sys.stdout, width=width, height=25)


def format_metric(metrics: Mapping[str, Any], name: str) -> str:
    """A metric as text, with the interval where `intervals` has one; empty where it is missing."""
    value = format_percent(metrics.get(name, ""))
    if name not in metrics.get("intervals", {}):
        return value
    low, high = metrics["intervals"][name]
    return f"{value} ({format_percent(low)}-{format_percent(high)})"


def format_time(seconds: float) -> str:
    """A time in seconds since the epoch, for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def format_duration(seconds: float) -> str:
    """Seconds, for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"
