"""Table of a sweep's stages with their costs, for its HTML page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reid_tune.journal.costs import Cost
from reid_tune.journal.progress import Progress
from reid_tune.journal.stages import STAGES
from reid_tune.journal.state import SweepState
from reid_tune.report.formatting import format_hours
from reid_tune.report.html_tables import HtmlTable
from reid_tune.tables import format_time

__all__ = ["stages_table"]

_COST_COLUMNS = {"hours": "time", "cpu_hours": "CPU-hours", "gpu_hours": "GPU-hours"}


def stages_table(state: SweepState, progress: Progress, spent: Mapping[str, Cost]) -> HtmlTable:
    """Return for each stage its costs, the planned costs and its start; then the totals and the budget."""
    started = {stage.name: stage for stage in progress.stages}
    plan: dict[str, Any] = state.stages.get("preflight", {})
    units = ["hours", "cpu_hours", *(["gpu_hours"] if any(cost.gpu_hours for cost in spent.values()) else [])]
    rows = []
    for name in dict.fromkeys([*STAGES, *started, *spent]):
        stage_plan: dict[str, Any] = plan.get("stages", {}).get(name, {})
        stage = started.get(name)
        stage_state = "not started" if stage is None else "done" if stage.done else "started"
        costs = _cost_cells(spent.get(name) if stage else None, stage_plan, units)
        start = format_time(stage.started) if stage else ""
        waiting = _waiting_cell(spent.get(name) if stage else None)
        rows.append([name, stage_state, *costs, waiting, str(stage_plan.get("runs", "")), start])
    total = sum(spent.values(), Cost())
    rows.append(["all", "", *_cost_cells(total, plan, units), _waiting_cell(total), "", ""])
    if any(limits := [format_hours(unit, state.header.sweep["budget"].get(unit)) for unit in units]):
        rows.append(["budget", "", *(text for limit in limits for text in (limit, "")), "", "", ""])
    cost_columns = [(name, "") for unit in units for name in (_COST_COLUMNS[unit], "planned")]
    columns = [
        ("stage", "text"),
        ("state", "text"),
        *cost_columns,
        ("waiting", ""),
        ("planned runs", ""),
        ("started", "text"),
    ]
    return HtmlTable(columns, rows)


def _cost_cells(spent: Cost | None, plan: Mapping[str, Any], units: Sequence[str]) -> Iterator[str]:
    for unit in units:
        yield format_hours(unit, getattr(spent, unit) if spent else None)
        yield format_hours(unit, plan.get(unit))


def _waiting_cell(spent: Cost | None) -> str:
    """Return how long runs waited for their resources, together."""
    return format_hours("hours", spent.waiting_hours) if spent and spent.waiting_hours else ""
