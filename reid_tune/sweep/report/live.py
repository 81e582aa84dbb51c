"""A running sweep on stderr: a live table in a terminal, lines elsewhere."""

import time
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reid_tune.events.log import Event
from reid_tune.sweep.report.summary import leaderboard
from reid_tune.sweep.state import RunState, SweepState
from reid_tune.tables import percent

__all__ = ["LiveView", "status_line"]


class LiveView:
    """A listener of the journal that shows what changes; a context manager."""

    def __init__(self, console: Console, metric: str, trials: int) -> None:
        self.console = console
        self.metric = metric
        self.trials = trials
        self.live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __call__(self, event: Event, state: SweepState) -> None:
        """Show the state behind an event."""
        if self.live is not None:
            status = Text(status_line(state, self.metric, self.trials), style="dim")
            self.live.update(Group(leaderboard(state), status) if state.trials else status)
        elif line := self._line(event, state):
            self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def _line(self, event: Event, state: SweepState) -> str | None:
        if event["kind"] == "stage" and event["state"] == "begun":
            return f"stage {event['stage']}"
        if event["kind"] == "suggested" and event["run"].startswith("refit/"):
            return f"{event['run']}: training on all identities"
        if event["kind"] != "ended":
            return None
        run = state.runs[event["run"]]
        return f"{_name(run)} {run.state} at epoch {run.epoch}{self._score(run)}{_reason(run)}"

    def _score(self, run: RunState) -> str:
        value = run.last(self.metric)
        return "" if value is None else f": {self.metric} {percent(value)} %"


def status_line(state: SweepState, metric: str, trials: int, now: float | None = None) -> str:
    """Stage, counts, the best so far against trial 0, and the time since the sweep began."""
    states = [trial.state for trial in state.trials]
    counts = ", ".join(f"{states.count(name)} {name}" for name in ("running", "finished", "stopped", "failed"))
    full = state.finished()
    zero = next((trial.last(metric) for trial in full if trial.number == 0), None)
    best = f"best {percent(full[0].last(metric))} %" if full else "no full-length trial yet"
    against = f", trial 0 {percent(zero)} %" if zero is not None else ""
    stage = next((name for name in reversed(state.begun) if name not in state.stages), "done")
    minutes = ((now or time.time()) - state.header["time"]) / 60
    return f"{stage}: trials {len(states)}/{trials} ({counts}); {metric} {best}{against}; {minutes:.1f} min"


def _name(run: RunState) -> str:
    return f"trial {run.number}" if run.name.startswith("trials/") else run.name


def _reason(run: RunState) -> str:
    return f" ({run.reason})" if run.reason else ""
