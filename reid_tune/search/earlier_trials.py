"""Trials of earlier sweeps as prior data of the model."""

from collections.abc import Mapping, Sequence
from typing import Any

from reid_tune.search.asha import Rungs
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.trial_model import ObservedTrial, TrialModel, observe

__all__ = ["EarlierTrials", "earlier_trials"]

_MIN_SOURCE_TRIALS = 2  # with a score, for a model


class EarlierTrials:
    """Trials of earlier sweeps.

    Args:
        same: Trials with the data and the spec of this sweep, which count like its own.
        sources: Models of the other trials of each sweep.
    """

    def __init__(self, same: Sequence[ObservedTrial] = (), sources: Sequence[TrialModel] = ()) -> None:
        self.same = same
        self.sources = sources

    def __bool__(self) -> bool:
        return bool(self.same or self.sources)

    def model(self, trials: Sequence[ObservedTrial], *, believe_stopped: bool = False) -> TrialModel:
        """Return the model of a sweep's trials, two or more of them with a score, and of the earlier ones."""
        return TrialModel([*self.same, *trials], self.sources, believe_stopped=believe_stopped)


def earlier_trials(encoding: SpaceEncoding, rungs: Rungs, learned: Sequence[Mapping[str, Any]]) -> EarlierTrials:
    """Return the trials of earlier sweeps.

    Args:
        encoding: Encoding of this sweep's space.
        rungs: ASHA's rungs.
        learned: Sweeps as the stage `preflight` has recorded them, see `LearnedSweep`.
    """
    same, sources = list[ObservedTrial](), list[TrialModel]()
    for sweep in learned:
        others = list[ObservedTrial]()
        for row in sweep["trials"]:
            trial = observe(encoding, row["parameters"], rungs, row["full_length"])
            trial.is_running, trial.is_failed = False, row["is_failed"]
            trial.scores = {int(epoch): score for epoch, score in row["scores"].items()}
            trial.is_earlier = True
            (same if row["is_same"] else others).append(trial)
        if sum(trial.is_scored for trial in others) >= _MIN_SOURCE_TRIALS:
            sources.append(TrialModel(others))
    return EarlierTrials(same, sources)
