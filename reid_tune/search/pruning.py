"""Decide which trials of a search are stopped or paused early."""

from collections.abc import Iterator, Mapping

from reid_tune.journal.state import SweepState, trial_run
from reid_tune.search.asha import Asha
from reid_tune.search.budget import BudgetTracker
from reid_tune.search.promotion import Promotion
from reid_tune.search.target import find_target_trial
from reid_tune.search_space.schema import ScoreName

__all__ = ["PruningRule"]

_TRIAL0 = trial_run(0)


class PruningRule:
    """Ends trials below ASHA's rungs, and all running ones when budget or target end the search, never trial 0.

    Args:
        asha: ASHA; in its promotion form trials pause at rungs, otherwise they are stopped there.
        budget_tracker: Tracker of the sweep's budget, None to apply no budget.
        target: Scores at which the search ends, by name of the metric.
    """

    def __init__(
        self,
        asha: Asha | Promotion,
        budget_tracker: BudgetTracker | None = None,
        target: Mapping[ScoreName, float] | None = None,
    ) -> None:
        self.asha = asha
        self.target = target or {}
        self.budget_tracker = budget_tracker

    def should_continue(self, run: str, epoch: int, value: float | None, costs: tuple[float, ...]) -> bool:
        """Record a trial's score at an epoch, and return whether the trial continues.

        Args:
            run: Name of the trial's run.
            epoch: Epoch, less the epochs by which the trial's rungs are later, see `Rungs`.
            value: Score, larger is better; None if the epoch was not validated.
            costs: Values of the further objectives, smaller is better.
        """
        if value is None:
            return True
        return self.asha.should_continue(run, epoch, value, costs) or run == _TRIAL0

    def runs_after_target(self, state: SweepState) -> Iterator[tuple[str, str]]:
        """Yield name and reason for each trial that must end because another has reached the target.

        Trials that a user has asked for continue.
        """
        if reached := find_target_trial(state, self.target):
            for trial in state.trials:
                if trial.name != _TRIAL0 and trial.origin != "user":
                    yield trial.name, f"trial {reached.number} has reached the target"

    def runs_over_budget(self, state: SweepState) -> Iterator[tuple[str, str]]:
        """Yield run and key of `budget` for each trial that must pause: only the reserve of later stages is left."""
        limit = self.budget_tracker.exceeded_limit() if self.budget_tracker else None
        if limit:
            for trial in state.trials:
                if trial.name != _TRIAL0:
                    yield trial.name, limit
