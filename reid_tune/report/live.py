"""A running sweep on stderr: a live table in a terminal, plain lines otherwise."""

from collections.abc import Callable, Iterable, Iterator
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reid_tune.journal.costs import Cost, CostLedger
from reid_tune.journal.events import Event, RunEnded, RunPaused, RunRetried, RunSuggested, StagesReopened, StageStarted
from reid_tune.journal.state import RunState, SweepState
from reid_tune.report.formatting import format_score, format_spent
from reid_tune.report.sentences import forecast_sentence
from reid_tune.report.summary import baseline_score
from reid_tune.report.tables import confirm_table, leaderboard
from reid_tune.search.asha import Rungs
from reid_tune.search.forecast import Forecaster
from reid_tune.tables import format_count

__all__ = ["LiveView", "status_text"]

_FRAME_LINES = 5  # lines of a table that are not rows
_STATUS_LINES = 7
_MIN_TRIALS = 3  # rows of the leaderboard in a low terminal


class LiveView:
    """A listener of the journal that shows what changes; a context manager.

    Attributes:
        tracking: Function that returns the problem with tracking, or an empty string.
    """

    def __init__(self, console: Console, trials: int) -> None:
        """Create a view.

        Args:
            trials: Number of trials in the budget.
        """
        self.console = console
        self.trials = trials
        self.tracking: Callable[[], str] = str
        self._problem_shown = False
        self.ledger = CostLedger()
        self.forecaster = Forecaster()
        self.live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __call__(self, event: Event, state: SweepState) -> None:
        """Show the state after an event."""
        self.ledger.apply(event)
        if self.live is not None:
            self.live.update(self._view(state))
            return
        for line in filter(None, (_line(event, state), self._tracking_change())):
            self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _tracking_change(self) -> str:
        """Return a new problem with tracking, or that it is solved; empty without a change."""
        problem = self.tracking()
        changed, self._problem_shown = bool(problem) != self._problem_shown, bool(problem)
        return (problem or "MLflow has caught up") if changed else ""

    def _view(self, state: SweepState) -> Group:
        """Return tables and status, with as many trials as fit: a terminal would cut off the status below them."""
        confirmed = confirm_table(state)
        below = _STATUS_LINES + (_FRAME_LINES + confirmed.row_count if confirmed else 0)
        limit = max(_MIN_TRIALS, self.console.height - below - _FRAME_LINES)
        trials = leaderboard(state, limit) if state.trials else None
        lines = [status_text(state, self.trials, self.ledger.total()), *self._forecast(state)]
        status = Text("\n".join(lines), style="dim")
        problem = Text(self.tracking(), style="yellow", no_wrap=True, overflow="ellipsis")
        return Group(*(part for part in (trials, confirmed, problem, status) if part))

    def _forecast(self, state: SweepState) -> Iterator[str]:
        """Yield the forecast during the search."""
        if state.trials and "search" not in state.stages and (forecast := self.forecaster.forecast(state)):
            yield forecast_sentence(forecast, state.metric)

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
            return f"to be run again: {', '.join(event.stages)}"
        case RunSuggested() if event.run.startswith("refit/"):
            return f"{event.run}: training on all identities"
        case RunRetried():
            return f"{_name(state.runs[event.run])} is retried ({event.failure}: {event.reason})"
        case RunPaused() | RunEnded():
            run = state.runs[event.run]
            return f"{_name(run)} {run.state} at epoch {run.epoch}{_score(run, state.metric)}{_reason(run)}"
    return None


def status_text(state: SweepState, trials: int, spent: Cost) -> str:
    """Return three lines: the stage with its runs; the best score against trial 0, and the rungs; the costs.

    Args:
        trials: Number of trials in the budget.
    """
    stage = next((name for name in reversed(state.stage_starts) if name not in state.stages), "done")
    runs, total = state.trials, f"of {format_count(trials, 'trial')}"
    if stage in ("confirm", "refit"):
        planned = state.stages.get("preflight", {}).get("stages", {}).get(stage, {}).get("runs")
        runs = [run for name, run in state.runs.items() if name.startswith(f"{stage}/")]
        total = f"of {planned} runs" if planned else "runs"
    counts = _counts([run.state for run in runs], ("running", "paused", "finished", "stopped", "failed"))
    failures = [run.failure.replace("_", " ") for run in runs if run.failure]
    failure_counts = f" ({_counts(failures, dict.fromkeys(failures))})" if failures else ""
    return (
        f"{stage}: {len(runs)} {total} started{': ' if counts else ''}{counts}{failure_counts}\n"
        f"{'; '.join([_best(state), *_rungs(state)])}\n"
        f"{format_spent(spent)}{_time_left(state, spent)}"
    )


def _counts(labels: list[str], order: Iterable[str]) -> str:
    return ", ".join(f"{labels.count(label)} {label}" for label in order if label in labels)


def _best(state: SweepState) -> str:
    metric, full = state.metric, state.finished()
    if not full:
        return f"{metric}: no full-length trial yet"
    baseline = baseline_score(state)
    against = f", trial 0 {format_score(baseline)} %" if baseline is not None else ""
    return f"{metric}: best {format_score(full[0].last(metric))} % (trial {full[0].number}){against}"


def _rungs(state: SweepState) -> Iterator[str]:
    """Yield for each rung how many trials reached it, and how many of them continued."""
    checks = state.stages.get("preflight", {})
    rungs = Rungs(tuple(checks.get("rungs", ())), checks.get("rung_warmup"))
    # Of each trial the last epoch, without those by which its warm-up is longer than the shortest one.
    ends = [
        (trial.state, trial.epoch - rungs.delay({**state.header.spec, **trial.parameters})) for trial in state.trials
    ]
    for rung in rungs.levels:
        reached = [(end, epoch) for end, epoch in ends if epoch >= rung]
        left = reached.count(("stopped", rung)) + reached.count(("paused", rung))
        if reached:
            yield f"rung {rung}: {len(reached) - left} of {len(reached)} continued"


def _time_left(state: SweepState, spent: Cost) -> str:
    hours = state.stages.get("preflight", {}).get("hours", 0) - spent.hours
    return f"; about {60 * hours:.0f} min left by the plan" if hours > 0 and "register" not in state.stages else ""


def _name(run: RunState) -> str:
    return f"trial {run.number}" if run.name.startswith("trials/") else run.name


def _score(run: RunState, metric: str) -> str:
    score = run.last(metric)
    return "" if score is None else f": {metric} {format_score(score)} %"


def _reason(run: RunState) -> str:
    return f" ({run.reason})" if run.reason else ""
