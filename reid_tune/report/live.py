"""A running sweep on stderr: a live table in a terminal, lines elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reid_tune.journal.costs import Cost, CostLedger
from reid_tune.journal.events import Event, RunEnded, RunRetried, RunSuggested, StagesReopened, StageStarted
from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.sentences import format_spent
from reid_tune.report.summary import confirm_table, leaderboard
from reid_tune.tables import format_count, format_percent

__all__ = ["LiveView", "status_text"]

_FRAME, _STATUS, _FEWEST = 5, 6, 3  # lines around a table's rows and of the status; trials at least


class LiveView:
    """A listener of the journal that shows what changes; a context manager.

    Attributes:
        tracking: Says what is wrong with tracking; nothing where all is well.
    """

    def __init__(self, console: Console, trials: int) -> None:
        self.console = console
        self.trials = trials
        self.tracking: Callable[[], str] = str
        self._told = False
        self.ledger = CostLedger()
        self.live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __call__(self, event: Event, state: SweepState) -> None:
        """Show the state behind an event."""
        self.ledger.apply(event)
        if self.live is not None:
            self.live.update(self._view(state))
            return
        for line in filter(None, (_line(event, state), self._trouble())):
            self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _trouble(self) -> str:
        """What is new about tracking: that it falls behind, or has caught up."""
        words = self.tracking()
        changed, self._told = bool(words) != self._told, bool(words)
        return (words or "MLflow has caught up") if changed else ""

    def _view(self, state: SweepState) -> Group:
        """As many trials as the terminal has room for, as it cuts off what stands below: the status."""
        confirmed = confirm_table(state)
        below = _STATUS + (_FRAME + confirmed.row_count if confirmed else 0)
        board = leaderboard(state, max(_FEWEST, self.console.height - below - _FRAME)) if state.trials else None
        status = Text(status_text(state, self.trials, self.ledger.total()), style="dim")
        trouble = Text(self.tracking(), style="yellow", no_wrap=True, overflow="ellipsis")
        return Group(*(part for part in (board, confirmed, trouble, status) if part))

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()


def _line(event: Event, state: SweepState) -> str | None:
    match event:
        case StageStarted():
            return f"stage {event.stage}"
        case StagesReopened():
            return f"to be done again: {', '.join(event.stages)}"
        case RunSuggested() if event.run.startswith("refit/"):
            return f"{event.run}: training on all identities"
        case RunRetried():
            return f"{_name(state.runs[event.run])} is started again ({event.failure}: {event.reason})"
        case RunEnded():
            run = state.runs[event.run]
            return f"{_name(run)} {run.state} at epoch {run.epoch}{_score(run, state.metric)}{_reason(run)}"
    return None


def status_text(state: SweepState, trials: int, spent: Cost) -> str:
    """Three lines: the stage with its runs; the best so far against trial 0, and the rungs; what was spent.

    Args:
        trials: Of the budget.
    """
    stage = next((name for name in reversed(state.stage_starts) if name not in state.stages), "done")
    runs, of = state.trials, f"of {format_count(trials, 'trial')}"
    if stage in ("confirm", "refit"):
        planned = state.stages.get("preflight", {}).get("stages", {}).get(stage, {}).get("runs")
        runs = [run for name, run in state.runs.items() if name.startswith(f"{stage}/")]
        of = f"of {planned} runs" if planned else "runs"
    counts = _counts([run.state for run in runs], ("running", "finished", "stopped", "failed"))
    failures = [run.failure.replace("_", " ") for run in runs if run.failure]
    why = f" ({_counts(failures, dict.fromkeys(failures))})" if failures else ""
    return (
        f"{stage}: {len(runs)} {of} begun{': ' if counts else ''}{counts}{why}\n"
        f"{'; '.join([_best(state), *_rungs(state)])}\n"
        f"{format_spent(spent)}{_left(state, spent)}"
    )


def _counts(words: list[str], known: Iterable[str]) -> str:
    return ", ".join(f"{words.count(word)} {word}" for word in known if word in words)


def _best(state: SweepState) -> str:
    metric, full = state.metric, state.finished()
    if not full:
        return f"{metric}: no full-length trial yet"
    zero = next((trial.last(metric) for trial in full if trial.number == 0), None)
    against = f", trial 0 {format_percent(zero)} %" if zero is not None else ""
    return f"{metric}: best {format_percent(full[0].last(metric))} % (trial {full[0].number}){against}"


def _rungs(state: SweepState) -> Iterator[str]:
    """Of each rung how many trials have come to it, and how many went on."""
    for rung in state.stages.get("preflight", {}).get("rungs", []):
        reached = [trial for trial in state.trials if trial.epoch >= rung]
        ended = sum(trial.state == "stopped" and trial.epoch == rung for trial in reached)
        if reached:
            yield f"rung {rung}: {len(reached) - ended} of {len(reached)} went on"


def _left(state: SweepState, spent: Cost) -> str:
    left = state.stages.get("preflight", {}).get("hours", 0) - spent.hours
    return f"; about {60 * left:.0f} min left by the plan" if left > 0 and "register" not in state.stages else ""


def _name(run: RunState) -> str:
    return f"trial {run.number}" if run.name.startswith("trials/") else run.name


def _score(run: RunState, metric: str) -> str:
    value = run.last(metric)
    return "" if value is None else f": {metric} {format_percent(value)} %"


def _reason(run: RunState) -> str:
    return f" ({run.reason})" if run.reason else ""
