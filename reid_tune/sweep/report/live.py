"""A running sweep on stderr: a live table in a terminal, lines elsewhere."""

from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reid_tune.events.log import Event
from reid_tune.sweep.budget import Ledger, Spent
from reid_tune.sweep.report.summary import confirm_table, leaderboard
from reid_tune.sweep.state import RunState, SweepState
from reid_tune.tables import percent

__all__ = ["LiveView", "status_line"]


class LiveView:
    """A listener of the journal that shows what changes; a context manager."""

    def __init__(self, console: Console, trials: int) -> None:
        self.console = console
        self.trials = trials
        self.ledger = Ledger()
        self.live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __call__(self, event: Event, state: SweepState) -> None:
        """Show the state behind an event."""
        self.ledger.apply(event)
        if self.live is not None:
            status = Text(status_line(state, self.trials, self.ledger.spent()), style="dim")
            tables = [table for table in (leaderboard(state), confirm_table(state)) if table] if state.trials else []
            self.live.update(Group(*tables, status))
        elif line := _line(event, state):
            self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()


def _line(event: Event, state: SweepState) -> str | None:
    match event["kind"]:
        case "stage" if event["state"] == "begun":
            return f"stage {event['stage']}"
        case "reopened":
            return f"done again: {', '.join(event['stages'])}"
        case "suggested" if event["run"].startswith("refit/"):
            return f"{event['run']}: training on all identities"
        case "setback":
            return f"{_name(state.runs[event['run']])} is started again ({event['failure']}: {event['reason']})"
        case "ended":
            run = state.runs[event["run"]]
            return f"{_name(run)} {run.state} at epoch {run.epoch}{_score(run, state.metric)}{_reason(run)}"
    return None


def status_line(state: SweepState, trials: int, spent: Spent) -> str:
    """Stage, counts, the best so far against trial 0, what was spent, and what the plan still has."""
    metric, states = state.metric, [trial.state for trial in state.trials]
    counts = ", ".join(f"{states.count(name)} {name}" for name in ("running", "finished", "stopped", "failed"))
    failures = [trial.failure for trial in state.trials if trial.failure]
    why = "".join(f", {failures.count(kind)} {kind}" for kind in dict.fromkeys(failures))
    full = state.finished()
    zero = next((trial.last(metric) for trial in full if trial.number == 0), None)
    best = f"best {percent(full[0].last(metric))} %" if full else "no full-length trial yet"
    against = f", trial 0 {percent(zero)} %" if zero is not None else ""
    stage = next((name for name in reversed(state.begun) if name not in state.stages), "done")
    return (
        f"{stage}: trials {len(states)}/{trials} ({counts}{why}); {metric} {best}{against}; "
        f"{_spent(spent)}{_left(state, spent)}"
    )


def _spent(spent: Spent) -> str:
    hours = f"{spent.gpu_hours:.2f} GPU-hours" if spent.gpu_hours else f"{spent.cpu_hours:.2f} CPU-hours"
    return f"{60 * spent.hours:.1f} min, {hours}"


def _left(state: SweepState, spent: Spent) -> str:
    planned = state.stages.get("preflight", {}).get("hours", 0)
    return f", about {60 * (planned - spent.hours):.0f} min left by the plan" if planned > spent.hours else ""


def _name(run: RunState) -> str:
    return f"trial {run.number}" if run.name.startswith("trials/") else run.name


def _score(run: RunState, metric: str) -> str:
    value = run.last(metric)
    return "" if value is None else f": {metric} {percent(value)} %"


def _reason(run: RunState) -> str:
    return f" ({run.reason})" if run.reason else ""
