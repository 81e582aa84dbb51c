"""What the trials of a search tell about configurations: a Gaussian process of their scores at all rungs."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.gaussian_process import GaussianProcess, Points

__all__ = ["UNTRAINABLE", "ObservedTrial", "TrialModel", "full_length_points", "observe"]

# Observations of which the process learns at most: a suggestion costs the third power of their number.
_MAX_OBSERVATIONS = 400
_MAX_BELIEVED = 100  # stopped trials, those with the best scores
_MAX_CURVES = 200  # full-length trials, the last ones, for the mean gain until full length
UNTRAINABLE = ("non_finite", "out_of_memory")  # failures that teach that a configuration is bad


@dataclass
class ObservedTrial:
    """A trial as the model knows it.

    Attributes:
        configuration: Values of the keys that are searched in it.
        point: Its point at full length.
        full_length: Its last epoch.
        scores: Score by 1-based epoch.
        costs: Values of the further objectives, smaller is better.
        is_running: Whether it may still reach its last epoch.
        is_failed: Whether its configuration cannot be trained.
    """

    configuration: Mapping[str, Any]
    point: Points
    full_length: int
    scores: dict[int, float] = field(default_factory=dict)
    costs: Sequence[float] = ()
    is_running: bool = True
    is_failed: bool = False

    @property
    def result(self) -> float | None:
        """The score at full length, None without it."""
        return self.scores.get(self.full_length)

    @property
    def is_scored(self) -> bool:
        """Whether its scores count."""
        return bool(self.scores) and not self.is_failed


class TrialModel:
    """Gaussian process of the scores of trials, shifted by the mean gain until full length, and of failures.

    Running trials count with the scores that the process expects.

    Args:
        trials: Trials, two or more of them with a score.
        levels: Epochs of the rungs. The process learns from the scores there and from the last one of each trial.
        believe_stopped: Whether stopped trials also count with the scores that the process expects at full length.
            Otherwise these stay uncertain, and configurations next to the best stopped trials seem worth a trial, again
            and again, although they would be stopped at the same rung.

    Attributes:
        best: Trials with a score, those first that are expected to have the best ones at full length.
        process: The process; at full length the logarithm of the share of the epochs is 0.
    """

    def __init__(
        self, trials: Collection[ObservedTrial], levels: Collection[int], *, believe_stopped: bool = False
    ) -> None:
        self._gain = _MeanGain([trial for trial in trials if trial.result is not None][-_MAX_CURVES:])
        self.best = sorted((trial for trial in trials if trial.is_scored), key=self._expected, reverse=True)
        self.process = self._fit(trials, frozenset(levels))
        believed = [trial for trial in trials if trial.is_running and trial.result is None]
        if believe_stopped:
            stopped = [trial for trial in self.best if not trial.is_running and trial.result is None]
            believed += stopped[:_MAX_BELIEVED]
        if believed:
            self.process.believe(full_length_points(believed))

    def _expected(self, trial: ObservedTrial) -> float:
        epoch = max(trial.scores)
        return trial.scores[epoch] + self._gain(epoch / trial.full_length)

    def _fit(self, trials: Collection[ObservedTrial], levels: frozenset[int]) -> GaussianProcess:
        rows = [
            (trial, math.log(epoch / trial.full_length), trial.scores[epoch] + self._gain(epoch / trial.full_length))
            for trial in trials
            if trial.is_scored
            for epoch in sorted(levels | {max(trial.scores)})
            if epoch in trial.scores
        ]
        worst = min(value for _, _, value in rows)
        rows += [(trial, 0.0, worst) for trial in trials if trial.is_failed]
        if len(rows) > _MAX_OBSERVATIONS:
            # The best ones and evenly spaced others.
            rows.sort(key=lambda row: -row[2])
            half = _MAX_OBSERVATIONS // 2
            spaced = np.linspace(half, len(rows) - 1, _MAX_OBSERVATIONS - half).astype(int)
            rows = rows[:half] + [rows[index] for index in spaced]
        shares = np.array([share for _, share, _ in rows])
        points = replace(full_length_points([trial for trial, _, _ in rows]), epochs=shares)
        return GaussianProcess(points, np.array([value for _, _, value in rows]))


def observe(encoding: SpaceEncoding, configuration: Mapping[str, Any]) -> ObservedTrial:
    """Return a running trial without scores."""
    full_length = configuration.get("train.num_epochs", encoding.space.base["train.num_epochs"])
    return ObservedTrial(configuration, encoding.points([configuration], [0.0]), full_length)


def full_length_points(trials: Sequence[ObservedTrial]) -> Points:
    """Return the points of trials at full length."""
    points = [trial.point for trial in trials]
    return Points(
        np.concatenate([point.numbers for point in points]),
        np.concatenate([point.categories for point in points]),
        np.zeros(len(points)),
    )


class _MeanGain:
    """Mean difference between the scores at full length and at a share of it, over full-length trials."""

    def __init__(self, finished: Sequence[ObservedTrial]) -> None:
        self._curves = [
            (
                [epoch / trial.full_length for epoch in sorted(trial.scores)],
                [trial.scores[epoch] for epoch in sorted(trial.scores)],
            )
            for trial in finished
        ]
        self._cache: dict[float, float] = {}

    def __call__(self, share: float) -> float:
        if share not in self._cache:
            gains = [scores[-1] - np.interp(share, shares, scores) for shares, scores in self._curves]
            self._cache[share] = float(np.mean(gains)) if gains else 0.0
        return self._cache[share]
