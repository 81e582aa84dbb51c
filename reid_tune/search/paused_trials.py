"""The paused trials of a search: which of them continues next, and which are given up."""

from collections.abc import Mapping

from reid_tune.journal.state import RunState, SweepState
from reid_tune.search.asha import Asha
from reid_tune.search.budget import BudgetTracker
from reid_tune.search.promotion import Promotion
from reid_tune.search.target import find_target_trial
from reid_tune.search_space.schema import ScoreName

__all__ = ["PausedTrials"]


class PausedTrials:
    """Decides about paused trials by the state of the sweep; trials that the budget paused come first.

    Args:
        state: State of the sweep, which changes with its events.
        asha: ASHA, which promotes trials in its promotion form.
        keep: Number of trials that may be paused at once.
        budget_tracker: Tracker of the sweep's budget, None to apply no budget.
        target: Scores at which the search ends, by name of the metric.
    """

    def __init__(
        self,
        state: SweepState,
        asha: Asha | Promotion,
        keep: int,
        budget_tracker: BudgetTracker | None,
        target: Mapping[ScoreName, float],
    ) -> None:
        self.state = state
        self.asha = asha
        self.keep = keep
        self.budget_tracker = budget_tracker
        self.target = target

    def next_run(self) -> str | None:
        """Return the trial that continues next; None if there is none, or the budget or the target forbids it."""
        trial = self._candidate()
        return trial.name if trial and self._limit(trial) is None else None

    def forbidding_limit(self) -> str | None:
        """Return the key of `budget` for which the next trial does not continue, None without one."""
        trial = self._candidate()
        return self._limit(trial) if trial else None

    def surplus(self) -> list[RunState]:
        """Return the trials beyond those that may be paused at once: the ones that matter least."""
        at_rungs = self._paused_at_rungs()
        ranked = self.asha.ranked(at_rungs) if isinstance(self.asha, Promotion) else at_rungs
        return [*self._paused_by_budget(), *(self.state.runs[run] for run in ranked)][self.keep :]

    def _candidate(self) -> RunState | None:
        if find_target_trial(self.state, self.target):
            return None
        if by_budget := self._paused_by_budget():
            return by_budget[0]
        run = self.asha.next_run(self._paused_at_rungs()) if isinstance(self.asha, Promotion) else None
        return self.state.runs[run] if run else None

    def _paused_by_budget(self) -> list[RunState]:
        """Return the trials that the budget paused: those with the most epochs first, of equal ones the best first."""
        paused = [trial for trial in self.state.trials if trial.state == "paused" and trial.limit]
        return sorted(paused, key=lambda trial: (-trial.epoch, -(trial.last(self.state.metric) or 0.0), trial.number))

    def _paused_at_rungs(self) -> list[str]:
        return [trial.name for trial in self.state.trials if trial.state == "paused" and not trial.limit]

    def _limit(self, trial: RunState) -> str | None:
        return self.budget_tracker.continuation_limit(trial) if self.budget_tracker else None
