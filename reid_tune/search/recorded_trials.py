"""The ended trials of an event log as the model of the search sees them."""

import math
from collections.abc import Sequence
from pathlib import Path

from reid_tune.journal.state import RunState, SweepState
from reid_tune.search.asha import Rungs
from reid_tune.search.earlier_trials import earlier_trials
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.trial_model import UNTRAINABLE, ObservedTrial, TrialModel, observe
from reid_tune.search_space.recorded import recorded_sweep

__all__ = ["MIN_TRIALS", "RecordedTrials", "ended_trials"]

MIN_TRIALS = 4  # ended trials with a score below which a model would be a guess


class RecordedTrials:
    """Ended trials of a sweep, kept from one state to the next: to encode a thousand of them takes 0.2 s.

    Args:
        state: State of the sweep, with its header.

    Raises:
        InputError: the sweep was begun with another version, whose space or spec this one cannot read.
    """

    def __init__(self, state: SweepState) -> None:
        self.space = recorded_sweep(state, Path(state.header.name)).space
        self.encoding = SpaceEncoding(self.space)
        preflight = state.stages.get("preflight", {})
        self._rungs = Rungs(tuple(preflight.get("rungs", ())), preflight.get("rung_warmup"))
        self._earlier = earlier_trials(self.encoding, self._rungs, preflight.get("learned", []))
        self._metric = state.metric
        self._trials: dict[tuple[str, str, int], ObservedTrial] = {}  # by run, state and last epoch

    def observe(self, run: RunState) -> ObservedTrial:
        """Return an ended trial."""
        mark = (run.name, run.state, run.epoch)
        if mark not in self._trials:
            trial = observe(self.encoding, run.parameters, self._rungs)
            scores = {epoch: metrics.get(self._metric, math.nan) for epoch, metrics in run.epochs.items()}
            trial.scores = {epoch: score for epoch, score in scores.items() if math.isfinite(score)}
            trial.is_running, trial.is_failed = False, run.failure in UNTRAINABLE
            self._trials[mark] = trial
        return self._trials[mark]

    def model(self, runs: Sequence[RunState]) -> TrialModel | None:
        """Return the model of ended trials, None if fewer than MIN_TRIALS have a score."""
        trials = [self.observe(run) for run in sorted(runs, key=lambda run: run.number)]
        if sum(trial.is_scored for trial in trials) < MIN_TRIALS:
            return None
        return self._earlier.model(trials)


def ended_trials(state: SweepState) -> list[RunState]:
    """Return the trials that have ended, in the order of their ends."""
    ended = [trial for trial in state.trials if trial.state != "running"]
    return sorted(ended, key=lambda trial: (trial.ended, trial.number))
