"""Tables of a sweep for the terminal and for MLflow's page."""

from typing import Any

from rich.table import Table

from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.formatting import format_cost, format_interval, format_parameter, format_score, trial_label
from reid_tune.report.summary import finalist_scores, ranked_trials, winner_number
from reid_tune.search.parameters import SearchedParameter, searched_parameters
from reid_tune.tables import format_count, format_duration, format_percent, metrics_table

__all__ = ["confirm_rows", "confirm_table", "finalist_table", "leaderboard", "plan_table"]


def leaderboard(state: SweepState, limit: int | None = None) -> Table:
    """Return a table of the trials, the best first; full-length trials come before those that were stopped early.

    Args:
        limit: Maximum number of trials; all of them if None.
    """
    metric = state.metric
    keys, trials = searched_parameters(state), ranked_trials(state)
    selection = f", the best {limit} of" if limit is not None and limit < len(trials) else ","
    count = format_count(len(trials), "trial")
    table = Table(title=f"{state.header.name}: {metric} on the validation split{selection} {count}")
    for name in ("trial", "state", "epoch", f"{metric} %", *state.costs):
        table.add_column(name, justify="right" if name != "state" else "left")
    for key in keys:
        table.add_column(key.label, justify="right")
    winner = winner_number(state)
    for trial in trials[:limit]:
        table.add_row(*_trial_cells(trial, state, keys), style=_row_style(trial.number, winner))
    return table


def _trial_cells(trial: RunState, state: SweepState, keys: list[SearchedParameter]) -> list[str]:
    return [
        trial_label(trial.number),
        trial.state,
        str(trial.epoch),
        format_score(trial.last(state.metric)),
        *(format_cost(trial, cost) for cost in state.costs),
        *(format_parameter(key, trial) for key in keys),
    ]


def _row_style(number: int, winner: int | None) -> str | None:
    return "bold green" if number == winner else "cyan" if number == 0 else None


def confirm_table(state: SweepState) -> Table | None:
    """Return a table of the repeats that compare two trials, and of the race; None before the stage `confirm`."""
    if (result := state.stages.get("confirm")) is None:
        return None
    table = Table(
        title=f"compared by {format_count(result['repeats'], 'repeat')}, each with another seed and validation split; "
        f"the winner is trial {result['winner']}"
    )
    has_race = result["rounds"] > 0
    for name in ("trial", f"{state.metric} %", "each", "against trial 0", *(["race before"] if has_race else [])):
        table.add_column(name, justify="left" if name == "trial" else "right")
    for number, cells in confirm_rows(result):
        table.add_row(trial_label(number), *cells, style=_row_style(number, result["winner"]))
    return table


def confirm_rows(confirm_result: dict[str, Any]) -> list[tuple[int, list[str]]]:
    """Return the trials of the stage `confirm` with mean, repeats, difference to trial 0, and scores in the race.

    The compared trials come first, the better one before the other. Without a race there is no cell for it.

    Args:
        confirm_result: Result of the stage `confirm`.
    """
    race = {row["number"]: " ".join(map(format_percent, row["values"])) for row in confirm_result["race"]}
    compared = sorted(confirm_result["trials"], key=lambda row: -row["mean"])
    rows = {
        row["number"]: [
            format_percent(row["mean"]),
            " ".join(map(format_percent, row["values"])),
            format_interval(row["against_trial0"]),
        ]
        for row in compared
    }
    if not confirm_result["rounds"]:
        return list(rows.items())
    others = {number: ["", "", ""] for number in race if number not in rows}
    return [(number, [*cells, race.get(number, "")]) for number, cells in (rows | others).items()]


def finalist_table(state: SweepState) -> Table | None:
    """Return a table of the finalists' scores on the test sets; None before the stage `test`."""
    if not (scores := finalist_scores(state)):
        return None
    table = metrics_table(scores)
    table.title = "test folders"
    return table


def plan_table(plan: dict[str, Any]) -> Table:
    """Return a table of runs, epochs and time of the stages that train.

    Args:
        plan: Result of the stage `preflight`.
    """
    unit = "GPU-hours" if plan["gpus_per_run"] else "CPU-hours"
    key = unit.lower().replace("-", "_")
    table = Table(title=f"{plan['name']}: cost estimated from 20 steps of the spec")
    for name in ("stage", "runs", "epochs", "time", unit):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for name, stage in plan["stages"].items():
        time = format_duration(3600 * stage["hours"])
        table.add_row(name, str(stage["runs"]), f"{stage['epochs']:.0f}", time, f"{stage[key]:.2f}")
    table.add_row("all", "", "", format_duration(3600 * plan["hours"]), f"{plan[key]:.2f}", style="bold")
    return table
