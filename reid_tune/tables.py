"""Tables of metrics for people."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["metrics_table", "percent", "print_metrics", "print_table"]

# What stands beside the metrics and has no column of its own.
_BESIDE = ("intervals", "protocol")


def percent(value: Any) -> str:
    """A fraction in percent with one decimal; whole numbers as they are."""
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


def metrics_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row for each set of metrics; fractions in percent, with the interval where `intervals` has one."""
    table = Table()
    table.add_column("", no_wrap=True)
    columns = list(dict.fromkeys(name for metrics in rows.values() for name in metrics if name not in _BESIDE))
    for name in columns:
        fraction = any(isinstance(metrics.get(name), float) for metrics in rows.values())
        table.add_column(f"{name} %" if fraction else name.replace("_", " "), justify="right")
    for label, metrics in rows.items():
        table.add_row(label, *(_cell(metrics, name) for name in columns))
    return table


def print_metrics(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print `metrics_table` on stdout."""
    print_table(metrics_table(rows))


def print_table(table: Table) -> None:
    """Print a table on stdout, as wide as it needs where no terminal limits it."""
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=200)
    console.print(table, highlight=False)


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    value = percent(metrics.get(name, ""))
    if name not in metrics.get("intervals", {}):
        return value
    low, high = metrics["intervals"][name]
    return f"{value} ({percent(low)}-{percent(high)})"
