"""What a sweep still needs, and whether its budget reaches for another trial."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import ge, gt
from statistics import fmean

from reid_tune.errors import InputError
from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.costs import Cost, CostLedger, EpochTiming, TimingEstimator
from reid_tune.journal.events import Event
from reid_tune.journal.state import RunState, SweepState
from reid_tune.search_space.load import SweepConfig

__all__ = ["BUDGET_UNITS", "StageEstimate", "BudgetTracker", "estimate_later_stages", "require_gpus_for_gpu_hours"]

BUDGET_UNITS = ("hours", "gpu_hours", "cpu_hours")


@dataclass(frozen=True)
class StageEstimate:
    """What a stage will take; `epochs` are those of all its runs."""

    runs: int
    epochs: float
    cost: Cost


def estimate_later_stages(
    sweep: SweepConfig, pace: EpochTiming, epochs: int, trials: StageResources, refits: StageResources
) -> dict[str, StageEstimate]:
    """What confirm and refit will take; rerank, export, test and register hold nothing and are taken as nothing.

    Confirm repeats `confirm.top` trials and trial 0, refit winner and trial 0, all at full length. A refit learns from
    the hold-out's share too, and its workers divide the work without loss.

    Args:
        pace: Of a trial.
        epochs: Full length.
        trials: Of the trials and their repeats.
        refits: Of the refits.
    """
    file, begun = sweep.file, sweep.file.budget.trials
    repeats = min(file.confirm.top + 1, begun) * file.confirm.seeds
    finalists = min(2, begun) * file.refit.seeds
    images = 1 / (1 - sweep.experiment.dataset.validation_fraction)
    refit = EpochTiming(pace.start, pace.epoch * images * file.resources.workers / file.resources.refit_workers)
    return {
        "confirm": StageEstimate(repeats, repeats * epochs, trials.cost([pace.seconds(epochs)] * repeats)),
        "refit": StageEstimate(finalists, finalists * epochs, refits.cost([refit.seconds(epochs)] * finalists)),
    }


class BudgetTracker:
    """Whether the budget allows more trials.

    The budget is that of all stages, so what confirm and refit need is kept back, also where a command ends earlier.
    All that is computed from the log and the clock; a resumed sweep gives all past events to `apply`.

    Args:
        trials: Of the trials and their repeats.
        refits: Of the refits.
        probed: Used until the log has times of its own.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        trials: StageResources,
        refits: StageResources,
        probed: EpochTiming,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.sweep = sweep
        self.budget = sweep.file.budget
        self.trials = trials
        self.refits = refits
        self.probed = probed
        self.clock = clock
        self.ledger = CostLedger()
        self.stopwatch = TimingEstimator()
        self.state = SweepState()

    def apply(self, event: Event, state: SweepState) -> None:
        """Take one event in, with the state behind it: a listener of the journal."""
        self.ledger.apply(event)
        self.stopwatch.apply(event)
        self.state = state

    @property
    def pace(self) -> EpochTiming:
        """Of a trial."""
        return self.stopwatch.timing or self.probed

    def next_trial_limit(self) -> str | None:
        """The key of `budget` for which no further trial may begin; None while one may, and before trial 0.

        Of the running trials all are taken to reach their last epoch, of the next one what ended trials took on
        average. When running ones end sooner, or with a gain, the purse may open again.
        """
        trials = self.state.trials
        if not trials:
            return None
        if limit := self._reached(gt, one_more=True):
            return limit
        patience = self.budget.patience
        # Trial 0 ends in any case, and until then nobody knows what a gain is.
        if patience and trials[0].state != "running" and _without_gain(self.state) >= patience:
            return "patience"
        return None

    def exceeded_limit(self) -> str | None:
        """The key of `budget` for which running trials, all but trial 0, must end now: what is left is kept back."""
        return self._reached(ge, one_more=False)

    def _reached(self, beyond: Callable[[float, float], bool], *, one_more: bool) -> str | None:
        limits = {unit: limit for unit in BUDGET_UNITS if (limit := getattr(self.budget, unit)) is not None}
        if not limits:
            return None
        pace, longest = self.pace, max((self._epochs(trial) for trial in self.state.trials), default=self._spec_epochs)
        needs = self.ledger.total(self.clock())
        for stage in estimate_later_stages(self.sweep, pace, longest, self.trials, self.refits).values():
            needs += stage.cost
        if one_more:
            needs += self.trials.cost([*self._remaining(pace), pace.seconds(self._usual_epochs())])
        return next((unit for unit, limit in limits.items() if beyond(getattr(needs, unit), limit)), None)

    def _remaining(self, pace: EpochTiming) -> list[float]:
        """Seconds of each running trial until its last epoch, counted from its last report."""
        running = [trial for trial in self.state.trials if trial.state == "running"]
        return [
            pace.epoch * (self._epochs(trial) - trial.epoch) + (0 if trial.epochs else pace.start) for trial in running
        ]

    def _usual_epochs(self) -> float:
        ended = [trial.epoch for trial in self.state.trials if trial.state != "running"]
        return fmean(ended) if ended else self._spec_epochs

    @property
    def _spec_epochs(self) -> int:
        return self.sweep.experiment.train.num_epochs

    def _epochs(self, trial: RunState) -> int:
        return int(trial.parameters.get("train.num_epochs", self._spec_epochs))


def _without_gain(state: SweepState) -> int:
    """Trials that have ended since a full-length one was better than all before it."""
    ended = [trial for trial in state.trials if trial.state != "running"]
    best, count = -math.inf, 0
    for trial in sorted(ended, key=lambda trial: (trial.ended, trial.number)):
        value = trial.last(state.metric) if trial.state == "finished" else None
        if value is not None and value > best:
            best, count = value, 0
        else:
            count += 1
    return count


def require_gpus_for_gpu_hours(sweep: SweepConfig, trials: StageResources) -> None:
    """Refuse a budget of GPU-hours for runs that hold no GPU.

    Raises:
        InputError: so it is.
    """
    if sweep.file.budget.gpu_hours is not None and not trials.per_run.gpus:
        raise InputError(
            f"{sweep.source}: budget.gpu_hours = {sweep.file.budget.gpu_hours:g}, but runs hold no GPU here, so it "
            "would never be spent: give budget.cpu_hours or budget.hours."
        )
