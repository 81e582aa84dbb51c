"""What the trials of a search tell about configurations: a Gaussian process of their scores at all rungs."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from reid_tune.search.asha import Rungs
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.gaussian_process import GaussianProcess
from reid_tune.search.kernel import Points

__all__ = ["UNTRAINABLE", "ObservedTrial", "TrialModel", "full_length_points", "observe"]

# Observations of which the process learns at most: a suggestion costs the third power of their number.
_MAX_OBSERVATIONS = 400
_MAX_BELIEVED = 100  # stopped trials, those with the best scores
_PRIOR_TRIALS = 2.0  # number of trials that the initial weights of sources, and the spread of their scores, stand for
_LAST_TRIAL = 16  # number of own trials from which on sources do not count: what they get wrong would stay
_MIN_VARIANCE = 1e-8
_MAX_CURVES = 200  # full-length trials, the last ones, for the mean gain until full length
UNTRAINABLE = ("non_finite", "out_of_memory")  # failures that teach that a configuration is bad


@dataclass
class ObservedTrial:
    """A trial as the model knows it.

    Attributes:
        configuration: Values of the keys that are searched in it.
        point: Its point at full length.
        full_length: Its last epoch.
        rungs: Epochs of its rungs.
        scores: Score by 1-based epoch.
        costs: Values of the further objectives, smaller is better.
        is_running: Whether it may still reach its last epoch.
        is_failed: Whether its configuration cannot be trained.
        is_earlier: Whether it is of an earlier sweep, with the same data and spec.
    """

    configuration: Mapping[str, Any]
    point: Points
    full_length: int
    rungs: tuple[int, ...] = ()
    scores: dict[int, float] = field(default_factory=dict)
    costs: Sequence[float] = ()
    is_running: bool = True
    is_failed: bool = False
    is_earlier: bool = False

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

    It learns from the scores of each trial at its rungs and from its last score.

    Running trials count with the scores that the process expects. With sources, the process learns what they do not
    explain: the expected score is a weighted sum of theirs plus that of the process. The weights, 0 or more, are those
    of a ridge regression of the trials' scores on the predicted ones, which begins at equal weights with the sum 1,
    times a factor that falls from 1 to 0 with the number of trials.

    Args:
        trials: Trials, two or more of them with a score.
        sources: Models of sweeps with other data or another spec.
        believe_stopped: Whether stopped trials also count with the scores that the process expects at full length.
            Otherwise these stay uncertain, and configurations next to the best stopped trials seem worth a trial, again
            and again, although they would be stopped at the same rung.

    Attributes:
        best: Trials with a score, those first that are expected to have the best ones at full length.
        spread: Standard deviation of their expected scores.
        weights: Weight of each source.
        process: The process; at full length the logarithm of the share of the epochs is 0.
    """

    def __init__(
        self,
        trials: Collection[ObservedTrial],
        sources: Sequence["TrialModel"] = (),
        *,
        believe_stopped: bool = False,
    ) -> None:
        self._gain = _MeanGain([trial for trial in trials if trial.result is not None][-_MAX_CURVES:])
        self.best = sorted((trial for trial in trials if trial.is_scored), key=self._expected, reverse=True)
        self.spread = float(np.std([self._expected(trial) for trial in self.best]))
        self._sources = sources if len(self.best) < _LAST_TRIAL else ()
        self.weights = self._regress() if self._sources else np.zeros(0)
        self.process = self._fit(trials)
        believed = [trial for trial in trials if trial.is_running and trial.result is None]
        if believe_stopped:
            stopped = [trial for trial in self.best if not trial.is_running and trial.result is None]
            believed += stopped[:_MAX_BELIEVED]
        if believed:
            self.process.believe(full_length_points(believed))

    def predict(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Return means and standard deviations [n] of the noiseless scores at points."""
        means, deviations = self.process.predict(points)
        for weight, source in self.weighted_sources:
            source_means, source_deviations = source.predict(points)
            means, deviations = means + weight * source_means, np.hypot(deviations, weight * source_deviations)
        return means, deviations

    def draw(self, points: Points, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return scores at points by the expected function [n] and by drawn ones [64, n], see `GaussianProcess.draw`.

        What the sources predict is the same in all of them.
        """
        expected, drawn = self.process.draw(points, random)
        predicted = sum((weight * source.predict(points)[0] for weight, source in self.weighted_sources), np.zeros(1))
        return expected + predicted, drawn + predicted

    @property
    def weighted_sources(self) -> list[tuple[float, "TrialModel"]]:
        """The weights above 0 and their sources."""
        return [pair for pair in zip(self.weights.tolist(), self._sources, strict=True) if pair[0] > 0]

    def _expected(self, trial: ObservedTrial) -> float:
        epoch = max(trial.scores)
        return trial.scores[epoch] + self._gain(epoch / trial.full_length)

    def _regress(self) -> np.ndarray:
        scores = np.array([self._expected(trial) for trial in self.best])
        points = full_length_points(self.best)
        predicted = np.stack([source.predict(points)[0] for source in self._sources], axis=1)
        centered, count = predicted - predicted.mean(axis=0), len(self._sources)
        ridge = np.diag([_PRIOR_TRIALS * source.spread**2 + _MIN_VARIANCE for source in self._sources])
        products = centered.T @ (scores - scores.mean()) + ridge @ np.full(count, 1 / count)
        fade = max(0.0, 1 - len(self.best) / _LAST_TRIAL)
        return np.maximum(np.linalg.solve(centered.T @ centered + ridge, products), 0) * fade

    def _fit(self, trials: Collection[ObservedTrial]) -> GaussianProcess:
        rows = [
            (trial, math.log(epoch / trial.full_length), trial.scores[epoch] + self._gain(epoch / trial.full_length))
            for trial in trials
            if trial.is_scored
            for epoch in sorted({*trial.rungs, max(trial.scores)})
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
        points = full_length_points([trial for trial, _, _ in rows])
        values = np.array([value for _, _, value in rows])
        scale = None
        for weight, source in self.weighted_sources:
            values = values - weight * source.predict(points)[0]
        if self._sources:  # Few scores that the sources explain by chance must not make the process certain.
            spread = np.mean([source.spread for source in self._sources])
            count = len(self.best)
            scale = math.sqrt((count * values.var() + _PRIOR_TRIALS * spread**2) / (count + _PRIOR_TRIALS)) or None
        return GaussianProcess(replace(points, epochs=np.array([share for _, share, _ in rows])), values, scale)


def observe(
    encoding: SpaceEncoding, configuration: Mapping[str, Any], rungs: Rungs, full_length: int | None = None
) -> ObservedTrial:
    """Return a running trial without scores.

    Args:
        encoding: Encoding of the search space.
        configuration: Values of the keys that are searched in the trial.
        rungs: ASHA's rungs.
        full_length: Its last epoch, None for that of the configuration.
    """
    values = {**encoding.space.base, **configuration}
    if full_length is not None:
        values["train.num_epochs"] = full_length
    points = encoding.points([configuration], [0.0])
    return ObservedTrial(configuration, points, values["train.num_epochs"], rungs.epochs(values))


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
