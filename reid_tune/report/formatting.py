"""Text of single values in tables, sentences and charts of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from reid_tune.journal.costs import Cost
from reid_tune.journal.state import RunState
from reid_tune.search.parameters import SearchedParameter
from reid_tune.tables import format_duration, format_percent

__all__ = [
    "FINALIST_LABELS",
    "KIND_LABELS",
    "cost_axis",
    "format_cost",
    "format_hours",
    "format_interval",
    "format_parameter",
    "format_score",
    "format_spent",
    "format_value",
    "inline_yaml",
    "list_trials",
    "shorten",
    "trial_label",
]

FINALIST_LABELS = {"winner": "winner", "trial0": "trial 0"}
# The ways in which the stage `test` scores an ONNX file.
KIND_LABELS = {"plain": "plain", "re_ranked": "re-ranked", "tuned": "re-ranked as tuned"}


def trial_label(number: int) -> str:
    """Return a trial's number; trial 0 is marked as the spec."""
    return f"{number} (spec)" if number == 0 else str(number)


def list_trials(numbers: Sequence[int]) -> str:
    """Return trial numbers as part of a sentence: `trial 3`, `trials 1, 2 and 3`."""
    *first, last = map(str, numbers)
    return f"trials {', '.join(first)} and {last}" if first else f"trial {last}"


def format_score(score: float | None) -> str:
    """Return a fraction as percent with one decimal; empty for None."""
    return "" if score is None else format_percent(score)


def format_value(value: Any) -> str:
    """Return a parameter's value for a table cell, floats with three significant digits and None as YAML writes it."""
    return f"{value:.3g}" if isinstance(value, float) else "null" if value is None else str(value)


def format_parameter(parameter: SearchedParameter, trial: RunState) -> str:
    """Return a trial's value of a searched parameter; empty where a condition leaves it out."""
    return format_value(parameter.values_by_trial([trial]).get(trial.number, ""))


def format_interval(difference: Mapping[str, Any] | None) -> str:
    """Return a difference in percentage points with its 95 % interval; empty for None.

    Args:
        difference: `mean`, `low` and `high` as fractions; without an interval, `low` and `high` are None.
    """
    if difference is None:
        return ""
    mean, low, high = (difference[key] for key in ("mean", "low", "high"))
    interval = "no interval" if low is None else f"{100 * low:+.1f} .. {100 * high:+.1f}"
    return f"{100 * mean:+.1f} ({interval})"


def format_cost(trial: RunState, cost: str) -> str:
    """Return a trial's value of a cost objective; empty where it has none."""
    value = trial.costs.get(cost)
    if value is None:
        return ""
    return f"{value / 1e6:.1f} M" if cost == "parameters" else f"{value:.4g}"


def cost_axis(cost: str) -> tuple[str, float]:
    """Return the axis label of a cost objective with its unit, and the factor to that unit."""
    return {"parameters": ("parameters, millions", 1e-6), "gflops": ("GFLOPs per image", 1.0)}.get(cost, (cost, 1.0))


def format_hours(unit: str, hours: float | None) -> str:
    """Return hours for a table cell: as a duration if the unit is `hours`, else with two decimals; empty for None."""
    if hours is None:
        return ""
    return format_duration(3600 * hours) if unit == "hours" else f"{hours:.2f}"


def shorten(text: str, length: int) -> str:
    """Return a text cut to a number of characters, an ellipsis included."""
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def format_spent(spent: Cost) -> str:
    """Return hours, GPU-hours, or CPU-hours where no GPU was used, and the hours that runs waited for them."""
    device_hours = f"{spent.gpu_hours:.2f} GPU-hours" if spent.gpu_hours else f"{spent.cpu_hours:.2f} CPU-hours"
    waiting = f", runs waited {spent.waiting_hours:.2f} hours" if spent.waiting_hours >= 0.005 else ""
    return f"{spent.hours:.2f} hours, {device_hours}{waiting}"


def inline_yaml(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
