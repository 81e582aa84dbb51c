"""Remaining cost of a sweep, and whether the budget allows another trial."""

import math
import time
from collections.abc import Callable, Sequence
from operator import ge, gt
from statistics import fmean

from reid_tune.errors import InputError
from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.costs import Cost, CostLedger, EpochTiming, TimingEstimator
from reid_tune.journal.events import Event, RunEnded, SpaceChanged, StagesReopened
from reid_tune.journal.state import RunState, SweepState
from reid_tune.search.candidates import select_candidates
from reid_tune.search.forecast import Forecaster
from reid_tune.search.recorded_trials import ended_trials
from reid_tune.search.reserve import FullLength, estimate_later_stages, estimate_refit
from reid_tune.search_space.load import SweepConfig

__all__ = ["BUDGET_UNITS", "BudgetTracker", "require_gpus_for_gpu_hours"]

BUDGET_UNITS = ("hours", "gpu_hours", "cpu_hours")


class BudgetTracker:
    """Tracks the cost of a sweep, and tells whether its budget allows further trials.

    The budget covers all stages, so confirm and refit have a reserve, even if a command ends before them. Everything is
    computed from the event log and the clock; for a resumed sweep, `apply` must be called with all past events.

    Args:
        sweep: Sweep with the budget.
        trials: Resources of trials and repeats.
        refits: Resources of refits.
        probed: Timing of a trial by the probe, used until the log has times of trials.
        clock: Function that returns the time in seconds since the epoch.
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
        self.timing_estimator = TimingEstimator()
        self.forecaster = Forecaster()
        self.state = SweepState()
        self._space_time = -math.inf  # when the space changed last
        self._candidates: list[RunState] | None = None  # kept until a run ends: to select them validates many specs

    def apply(self, event: Event, state: SweepState) -> None:
        """Apply one event and the state after it; a listener of the journal."""
        self.ledger.apply(event)
        self.timing_estimator.apply(event)
        self.state = state
        if isinstance(event, RunEnded | StagesReopened):
            self._candidates = None
        if isinstance(event, SpaceChanged):
            self._space_time = event.time

    @property
    def timing(self) -> EpochTiming:
        """Timing of a trial."""
        return self.timing_estimator.timing or self.probed

    def next_trial_limit(self) -> str | None:
        """Return the key of `budget` that forbids another trial, None while one may begin and before trial 0.

        The key of `patience: {min_gain: 0.3}` is `min_gain`. Where hours are limited, the gain of a trial is divided by
        its epochs over those of the spec.

        All running trials are assumed to reach their last epoch, and the next one to take as long as ended trials did
        on average. When running trials end sooner or improve on the best, another trial may be allowed again.
        """
        trials = self.state.trials
        if not trials:
            return None
        limit = self._first_limit(gt, self._mean_epochs())
        if limit is not None:
            return limit
        # Trial 0 ends in any case, and until then there is no score to improve on.
        return None if trials[0].state == "running" else self._lost_patience()

    def _lost_patience(self) -> str | None:
        patience, min_gain = self.budget.patience, self.budget.min_gain
        if isinstance(patience, int) and _trials_without_improvement(self.state, self._space_time) >= patience:
            return "patience"
        if min_gain is None:
            return None
        is_below = self.forecaster.is_gain_below(self.state, min_gain / 100, for_length=bool(self._limits))
        return "min_gain" if is_below else None

    def continuation_limit(self, trial: RunState) -> str | None:
        """Return the key of `budget` that forbids to continue a paused trial, None while it may continue.

        It is assumed to take as long as a next trial, see `next_trial_limit`, or until its last epoch if that is less.
        """
        return self._first_limit(gt, min(self._mean_epochs(), self._epochs(trial) - trial.epoch))

    def exceeded_limit(self) -> str | None:
        """Return the key of `budget` for which running trials other than trial 0 must end: only the reserve is left."""
        return self._first_limit(ge)

    def next_repeat_limit(self, trials: Sequence[RunState]) -> str | None:
        """Return the key of `budget` that forbids another repeat of some trials, None while it may begin.

        The refits, and the repeats that run now, are reserved.

        Args:
            trials: Trials of the repeats, also several times.
        """
        expected = [self._full_length(trial) for trial in trials]
        running = [run for name, run in self.state.runs.items() if name.startswith("confirm/")]
        seconds = [full_length.seconds for full_length in expected]
        repeats = self.trials.cost(seconds) + self.trials.cost(self._remaining_seconds(running))
        finalists = [self._full_length(trial) for trial in trials if trial.name.startswith("trials/")]
        needs = self.ledger.total(self.clock()) + repeats + estimate_refit(self.sweep, finalists, self.refits).cost
        return self._first_beyond(gt, needs)

    def _first_limit(self, is_beyond: Callable[[float, float], bool], next_epochs: float | None = None) -> str | None:
        if not self._limits:
            return None
        needs = self.ledger.total(self.clock()) + self.reserve()
        if next_epochs is not None:
            next_trial = self.timing.seconds(next_epochs)
            needs += self.trials.cost([*self._remaining_seconds(self.state.trials), next_trial])
        return self._first_beyond(is_beyond, needs)

    def _first_beyond(self, is_beyond: Callable[[float, float], bool], needs: Cost) -> str | None:
        return next((unit for unit, limit in self._limits.items() if is_beyond(getattr(needs, unit), limit)), None)

    @property
    def _limits(self) -> dict[str, float]:
        """Limits by unit, without those that the budget leaves out."""
        return {unit: limit for unit in BUDGET_UNITS if (limit := getattr(self.budget, unit)) is not None}

    def reserve(self) -> Cost:
        """Return the expected cost of confirm and refit with the candidates of now.

        While there are fewer full-length trials than candidates, the others are taken to have the longest training of
        the trials, with their median speed.
        """
        trials = self.state.trials
        if self._candidates is None:
            self._candidates = select_candidates(self.sweep, self.state) if self.state.finished() else []
        best = [trial for trial in self._candidates if trial.number]
        candidates = [self._full_length(trial) for trial in [*trials[:1], *best]]
        longest = max((self._epochs(trial) for trial in trials), default=self._spec_epochs)
        missing = min(self.sweep.file.confirm.candidates + 1, self.budget.trials) - len(candidates)
        candidates += [FullLength(self.timing, longest)] * missing
        later = estimate_later_stages(self.sweep, candidates, self.trials, self.refits, self.state.champion)
        return sum((stage.cost for stage in later.values()), Cost())

    def _full_length(self, trial: RunState) -> FullLength:
        return FullLength(self._timing_of(trial), self._epochs(trial))

    def _timing_of(self, run: RunState) -> EpochTiming:
        return self.timing_estimator.timing_of(run.name) or self.timing

    def _remaining_seconds(self, runs: Sequence[RunState]) -> list[float]:
        """Return the seconds of each running one of these runs from its last report to its last epoch."""
        return [
            self._timing_of(run).epoch * (self._epochs(run) - run.epoch) + (0 if run.epochs else self.timing.start)
            for run in runs
            if run.state == "running"
        ]

    def _mean_epochs(self) -> float:
        ended = [trial.epoch for trial in self.state.trials if trial.state != "running"]
        return fmean(ended) if ended else self._spec_epochs

    @property
    def _spec_epochs(self) -> int:
        return self.sweep.experiment.train.num_epochs

    def _epochs(self, trial: RunState) -> int:
        return int(trial.parameters.get("train.num_epochs", self._spec_epochs))


def _trials_without_improvement(state: SweepState, since: float) -> int:
    """Return the number of trials that have ended since the last full-length one that improved on the best.

    Args:
        since: Time before which no ended trial counts, in seconds since the epoch.
    """
    best, count = -math.inf, 0
    for trial in ended_trials(state):
        value = trial.last(state.metric) if trial.state == "finished" else None
        if value is not None and value > best:
            best, count = value, 0
        elif trial.ended is not None and trial.ended >= since:
            count += 1
    return count


def require_gpus_for_gpu_hours(sweep: SweepConfig, trials: StageResources) -> None:
    """Reject a budget of GPU-hours for runs that hold no GPU.

    Raises:
        InputError: the file has a budget of GPU-hours, and trials hold no GPU.
    """
    if sweep.file.budget.gpu_hours is not None and not trials.per_run.gpus:
        raise InputError(
            f"{sweep.source}: budget.gpu_hours = {sweep.file.budget.gpu_hours:g}, but runs hold no GPU here, so it "
            "would never be used up: set budget.cpu_hours or budget.hours."
        )
