"""Tables of a search space: its ranges, and the first trials that a sweep would suggest."""

import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from reid_tune.config.keys import is_bundle_key
from reid_tune.journal.state import trial_run
from reid_tune.search.study import Study
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.ranges import Range
from reid_tune.search_space.space import SearchSpace

__all__ = ["first_suggestions", "ranges_table", "suggestions_table"]


def first_suggestions(sweep: SweepConfig, count: int) -> list[dict[str, Any]]:
    """Return the parameters of the trials 1 to `count`, suggested without results; a small space has fewer."""
    study = Study(sweep)
    count = min(count, sweep.file.budget.trials - 1)
    suggestions = (study.ask(trial_run(number), number) for number in range(1, count + 1))
    return [parameters for parameters in suggestions if parameters is not None]


def ranges_table(space: SearchSpace, title: str | None = None) -> Table:
    """Return a row for each range with the spec's value and the conditions; the constraints are below the table."""
    constraints = "\n".join(constraint.text for constraint in space.constraints)
    table = Table(title=title, caption=escape(constraints) or None, caption_justify="left")
    for name in ("key", "range", "spec", "when"):
        table.add_column(name)
    for parameter in space.parameters:
        for branch in parameter.branches:
            conditions = [f"{key}: {' or '.join(map(_format, values))}" for key, values in branch.when.items()]
            spec_value = _spec_value(space, parameter.key)
            cells = parameter.key, _format_range(branch.range), spec_value, ", ".join(conditions)
            table.add_row(*map(escape, cells))
    return table


def suggestions_table(space: SearchSpace, suggestions: list[dict[str, Any]]) -> Table:
    """Return a row for each trial, without the keys that its bundle fixes.

    A key that a trial does not search, so that the spec's value applies, shows `-`.
    """
    table = Table()
    table.add_column("trial", justify="right")
    keys = [parameter.key for parameter in space.parameters if not parameter.is_fixed_by_bundle]
    for key in keys:
        parts = key.split(".")
        table.add_column(".".join(parts[-2:]) if parts[-1] == "name" else parts[-1], justify="right")
    table.add_row("0 (spec)", *(escape(_spec_value(space, key)) for key in keys), style="cyan")
    for number, parameters in enumerate(suggestions, 1):
        table.add_row(str(number), *(escape(_format(parameters[key])) if key in parameters else "-" for key in keys))
    return table


def _spec_value(space: SearchSpace, key: str) -> str:
    """Return the spec's value, `-` for a bundle where the spec is not in one."""
    value = space.base[key]
    return "-" if value is None and is_bundle_key(key) else _format(value)


def _format_range(range: Range) -> str:
    ((kind, values),) = range.as_entry().items()
    return f"{kind} {_format(values)}"


def _format(value: Any) -> str:
    """Return a value almost as YAML writes it, floats with three significant digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(_format, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_format(inner)}' for key, inner in value.items())}}}"
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
