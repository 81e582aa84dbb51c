"""The sampler `auto`: a Gaussian process over configurations and epochs, which learns from every rung."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import qmc

from reid_tune.search.acquisition import expected_front_growth, expected_improvement
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.gaussian_process import GaussianProcess, Points
from reid_tune.search.sampler import Sampler, TrialEnd

__all__ = ["JointSampler", "ObservedTrial"]

_RANDOM_CANDIDATES, _NEAR_CANDIDATES, _NEAR_TRIALS = 400, 60, 4
# A candidate near a trial: the standard deviation of its steps, and the probabilities that a coordinate makes one and
# that it is drawn again.
_STEP, _STEP_PROBABILITY, _REDRAW_PROBABILITY = 0.1, 0.7, 0.05
# Observations of which the process learns at most: a suggestion costs the third power of their number.
_MAX_OBSERVATIONS = 400
_MAX_REACHED = 200  # trials with the best scores that a candidate must improve on
_MAX_CURVES = 200  # full-length trials, the last ones, for the mean gain until full length
_CORNER = 1.2  # logarithm of the cost at which a front ends, in spans of the trials' costs
_UNTRAINABLE = ("non_finite", "out_of_memory")  # failures that teach that a configuration is bad


@dataclass
class ObservedTrial:
    """A trial as the sampler knows it.

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


class JointSampler(Sampler):
    """Suggests configurations from the scores of all trials at all rungs.

    A suggestion maximizes the expected improvement of the score at full length. With further objectives it maximizes
    the expected growth of the area that the Pareto front dominates, summed over these objectives. Running trials count
    with the scores that the process expects. Everything follows from the seed, the trial's number and the trials.

    Args:
        encoding: Encoding of the search space.
        seed: Seed of the search.
        startup: Number of trials with a score or a failure before which configurations are spread evenly.
        levels: Epochs of the rungs. The process learns from the scores there and from the last one of each trial.

    Attributes:
        trials: Trials by run.
    """

    def __init__(self, encoding: SpaceEncoding, seed: int, startup: int, levels: Sequence[int]) -> None:
        self.encoding = encoding
        self.seed = seed
        self.startup = startup
        self.levels = frozenset(levels)
        self.trials: dict[str, ObservedTrial] = {}

    def add(self, run: str, configuration: Mapping[str, Any]) -> None:
        full_length = configuration.get("train.num_epochs", self.encoding.space.base["train.num_epochs"])
        self.trials[run] = ObservedTrial(configuration, self.encoding.points([configuration], [0.0]), full_length)

    def record_costs(self, run: str, costs: Sequence[float]) -> None:
        self.trials[run].costs = costs

    def report(self, run: str, epoch: int, score: float) -> None:
        self.trials[run].scores[epoch] = score

    def end(self, run: str, end: TrialEnd) -> None:
        trial = self.trials[run]
        trial.scores = {epoch: score for epoch, score in end.epochs.items() if math.isfinite(score)}
        trial.is_running, trial.is_failed = False, end.failure in _UNTRAINABLE

    def candidates(self, number: int) -> Generator[dict[str, Any], None, None]:
        scored = sum(bool(trial.scores) and not trial.is_failed for trial in self.trials.values())
        failed = sum(trial.is_failed for trial in self.trials.values())
        if scored < 2 or scored + failed < self.startup:
            sobol = qmc.Sobol(max(1, self.encoding.dimensions), rng=self.seed)
            sobol.fast_forward(number)
            yield self.encoding.configuration(sobol.random(1)[0])
            return
        gain = _MeanGain([trial for trial in self.trials.values() if trial.result is not None][-_MAX_CURVES:])
        best = self._best_trials(gain)
        random = np.random.default_rng([self.seed, number])
        configurations = [self.encoding.configuration(position) for position in self._positions(random, best)]
        gains = self._gains(
            self.encoding.points(configurations, [0.0] * len(configurations)), best, self._process(gain)
        )
        yield from (configurations[index] for index in np.argsort(-gains, kind="stable"))

    def _positions(self, random: np.random.Generator, best: Sequence[ObservedTrial]) -> np.ndarray:
        """Return random positions and positions near the best trials [candidates, dimensions]."""
        dimensions = self.encoding.dimensions
        parts = [random.random((_RANDOM_CANDIDATES, dimensions))]
        for trial in best[:_NEAR_TRIALS]:
            center = self.encoding.position(trial.configuration, random.random(dimensions))
            shape = (_NEAR_CANDIDATES, dimensions)
            steps = random.normal(0, _STEP, shape) * (random.random(shape) < _STEP_PROBABILITY)
            redrawn = random.random(shape) < _REDRAW_PROBABILITY
            parts.append(np.where(redrawn, random.random(shape), np.clip(center + steps, 0, 1)))
        return np.concatenate(parts)

    def _best_trials(self, gain: "_MeanGain") -> list[ObservedTrial]:
        """Return the trials with a score, those first that are expected to have the best ones at full length."""
        scored = [trial for trial in self.trials.values() if trial.scores and not trial.is_failed]

        def expected(trial: ObservedTrial) -> float:
            epoch = max(trial.scores)
            return trial.scores[epoch] + gain(epoch / trial.full_length)

        return sorted(scored, key=expected, reverse=True)

    def _gains(self, candidates: Points, best: Sequence[ObservedTrial], process: GaussianProcess) -> np.ndarray:
        """Return what each candidate is expected to gain."""
        means, deviations = process.predict(candidates)
        # Also what stopped trials would have reached: otherwise the best of them would be tried again and again.
        tried = best[:_MAX_REACHED]
        points = _points(tried)
        reached = process.predict(points)[0]
        if not tried[0].costs:
            return expected_improvement(means, deviations, float(reached.max()))
        growth = np.zeros(len(candidates))
        for costs in np.log([trial.costs for trial in tried]).T:
            # The corner is beyond the most expensive trial: otherwise a better one at its cost would gain nothing.
            low, span = costs.min(), _CORNER * np.ptp(costs) or 1.0
            expected = GaussianProcess(points, costs).predict(candidates)[0]
            front = list(zip(reached, (costs - low) / span, strict=True))
            growth += expected_front_growth(
                means, deviations, np.clip((expected - low) / span, 0, 1), front, float(reached.min())
            )
        return growth

    def _process(self, gain: "_MeanGain") -> GaussianProcess:
        """Return the process of all scores, shifted by the mean gain until full length, and of failures."""
        rows = [
            (trial, math.log(epoch / trial.full_length), trial.scores[epoch] + gain(epoch / trial.full_length))
            for trial in self.trials.values()
            if trial.scores and not trial.is_failed
            for epoch in sorted(self.levels | {max(trial.scores)})
            if epoch in trial.scores
        ]
        worst = min(value for _, _, value in rows)
        rows += [(trial, 0.0, worst) for trial in self.trials.values() if trial.is_failed]
        if len(rows) > _MAX_OBSERVATIONS:
            # The best ones and evenly spaced others.
            rows.sort(key=lambda row: -row[2])
            half = _MAX_OBSERVATIONS // 2
            spaced = np.linspace(half, len(rows) - 1, _MAX_OBSERVATIONS - half).astype(int)
            rows = rows[:half] + [rows[index] for index in spaced]
        points = replace(_points([trial for trial, _, _ in rows]), epochs=np.array([share for _, share, _ in rows]))
        process = GaussianProcess(points, np.array([value for _, _, value in rows]))
        running = [trial for trial in self.trials.values() if trial.is_running and trial.result is None]
        if running:
            process.believe(_points(running))
        return process


def _points(trials: Sequence[ObservedTrial]) -> Points:
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
