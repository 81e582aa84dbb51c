"""What a search space looks like: its ranges, and the first trials that it gives."""

import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from reid_tune.journal.state import trial_run
from reid_tune.search.study import Study
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.ranges import Range
from reid_tune.search_space.space import SearchSpace

__all__ = ["first_suggestions", "ranges_table", "suggestions_table"]


def first_suggestions(sweep: SweepConfig, count: int) -> list[dict[str, Any]]:
    """The parameters of the trials 1 to count, as suggested while no result is known; of a grid no more than it has."""
    study = Study(sweep)
    count = min(count, len(study.grid)) if sweep.file.search.sampler == "grid" else count
    return [study.ask(trial_run(number), number) for number in range(1, count + 1)]


def ranges_table(space: SearchSpace, title: str | None = None) -> Table:
    """A row for each range with the spec's value and the conditions; the constraints below."""
    constraints = "\n".join(constraint.text for constraint in space.constraints)
    table = Table(title=title, caption=escape(constraints) or None, caption_justify="left")
    for name in ("key", "range", "spec", "when"):
        table.add_column(name)
    for parameter in space.parameters:
        for branch in parameter.branches:
            when = ", ".join(f"{key}: {' or '.join(map(_short, wanted))}" for key, wanted in branch.when.items())
            cells = parameter.key, _range(branch.range), _short(space.base[parameter.key]), when
            table.add_row(*map(escape, cells))
    return table


def suggestions_table(space: SearchSpace, suggested: list[dict[str, Any]]) -> Table:
    """A row for each trial; a key that is not searched in a trial, and so keeps the spec's value, has none."""
    table = Table()
    table.add_column("trial", justify="right")
    for parameter in space.parameters:
        parts = parameter.key.split(".")
        table.add_column(".".join(parts[-2:]) if parts[-1] == "name" else parts[-1], justify="right")
    keys = [parameter.key for parameter in space.parameters]
    table.add_row("0 (spec)", *(escape(_short(space.base[key])) for key in keys), style="cyan")
    for number, parameters in enumerate(suggested, 1):
        table.add_row(str(number), *(escape(_short(parameters[key])) if key in parameters else "-" for key in keys))
    return table


def _range(range: Range) -> str:
    ((kind, values),) = range.as_entry().items()
    return f"{kind} {_short(values)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_short(inner)}' for key, inner in value.items())}}}"
    return f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
