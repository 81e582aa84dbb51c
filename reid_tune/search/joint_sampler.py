"""The sampler `auto`: a Gaussian process over configurations and epochs, which learns from every rung."""

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from reid_tune.search.acquisition import expected_front_growth, expected_improvement
from reid_tune.search.asha import Rungs
from reid_tune.search.earlier_trials import EarlierTrials
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search.gaussian_process import GaussianProcess
from reid_tune.search.kernel import Points
from reid_tune.search.sampler import Sampler, TrialEnd
from reid_tune.search.trial_model import UNTRAINABLE, ObservedTrial, TrialModel, full_length_points, observe

__all__ = ["JointSampler", "draw_candidates"]

_RANDOM_CANDIDATES, _NEAR_CANDIDATES, _NEAR_TRIALS = 400, 60, 4
# A candidate near a trial: the standard deviation of its steps, and the probabilities that a coordinate makes one and
# that it is drawn again.
_STEP, _STEP_PROBABILITY, _REDRAW_PROBABILITY = 0.1, 0.7, 0.05
_LEARNED_STARTUP = 2  # number of trials that are spread evenly where earlier sweeps are known
_MAX_REACHED = 200  # trials with the best scores that a candidate must improve on
_CORNER = 1.2  # logarithm of the cost at which a front ends, in spans of the trials' costs


class JointSampler(Sampler):
    """Suggests configurations from the scores of all trials at all rungs.

    A suggestion maximizes the expected improvement of the score at full length. With further objectives it maximizes
    the expected growth of the area that the Pareto front dominates, summed over these objectives. Running trials count
    with the scores that the process expects. Everything follows from the seed, the trial's number and the trials.

    Args:
        encoding: Encoding of the search space.
        seed: Seed of the search.
        startup: Number of trials with a score or a failure before which configurations are spread evenly.
        rungs: ASHA's rungs.
        earlier: Trials of earlier sweeps.

    Attributes:
        trials: Trials by run.
    """

    def __init__(
        self,
        encoding: SpaceEncoding,
        seed: int,
        startup: int,
        rungs: Rungs,
        earlier: EarlierTrials | None = None,
    ) -> None:
        self.encoding = encoding
        self.seed = seed
        self.startup = startup
        self.rungs = rungs
        self.earlier = earlier or EarlierTrials()
        self.trials: dict[str, ObservedTrial] = {}

    def add(self, run: str, configuration: Mapping[str, Any]) -> None:
        self.trials[run] = observe(self.encoding, configuration, self.rungs)

    def record_costs(self, run: str, costs: Sequence[float]) -> None:
        self.trials[run].costs = costs

    def report(self, run: str, epoch: int, score: float) -> None:
        self.trials[run].scores[epoch] = score

    def end(self, run: str, end: TrialEnd) -> None:
        trial = self.trials[run]
        trial.scores = {epoch: score for epoch, score in end.epochs.items() if math.isfinite(score)}
        trial.is_running, trial.is_failed = False, end.failure in UNTRAINABLE

    def candidates(self, number: int) -> Generator[dict[str, Any], None, None]:
        scored = sum(trial.is_scored for trial in self.trials.values())
        failed = sum(trial.is_failed for trial in self.trials.values())
        startup = min(self.startup, _LEARNED_STARTUP) if self.earlier else self.startup
        if scored < 2 or scored + failed < startup:
            from scipy.stats import qmc  # The import takes half a second, and a resumed sweep has other candidates.

            sobol = qmc.Sobol(max(1, self.encoding.dimensions), rng=self.seed)
            sobol.fast_forward(number)
            yield self.encoding.configuration(sobol.random(1)[0])
            return
        model = self.earlier.model(list(self.trials.values()), believe_stopped=True)
        random = np.random.default_rng([self.seed, number])
        configurations = draw_candidates(self.encoding, random, model.best)
        for _, source in model.weighted_sources:
            configurations += _draw_near(self.encoding, random, source.best)
        gains = _gains(model, self.encoding.points(configurations, [0.0] * len(configurations)))
        yield from (configurations[index] for index in np.argsort(-gains, kind="stable"))


def draw_candidates(
    encoding: SpaceEncoding, random: np.random.Generator, best: Sequence[ObservedTrial]
) -> list[dict[str, Any]]:
    """Return random configurations and configurations near the best trials, which may break the constraints."""
    positions = random.random((_RANDOM_CANDIDATES, encoding.dimensions))
    return [encoding.configuration(position) for position in positions] + _draw_near(encoding, random, best)


def _draw_near(
    encoding: SpaceEncoding, random: np.random.Generator, best: Sequence[ObservedTrial]
) -> list[dict[str, Any]]:
    dimensions = encoding.dimensions
    configurations = list[dict[str, Any]]()
    for trial in best[:_NEAR_TRIALS]:
        center = encoding.position(trial.configuration, random.random(dimensions))
        shape = (_NEAR_CANDIDATES, dimensions)
        steps = random.normal(0, _STEP, shape) * (random.random(shape) < _STEP_PROBABILITY)
        redrawn = random.random(shape) < _REDRAW_PROBABILITY
        positions = np.where(redrawn, random.random(shape), np.clip(center + steps, 0, 1))
        configurations += map(encoding.configuration, positions)
    return configurations


def _gains(model: TrialModel, candidates: Points) -> np.ndarray:
    """Return what each candidate is expected to gain."""
    means, deviations = model.predict(candidates)
    # Also what stopped trials would have reached: otherwise the best of them would be tried again and again.
    tried = [trial for trial in model.best if not trial.is_earlier][:_MAX_REACHED]
    points = full_length_points(tried)
    reached = model.predict(points)[0]
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
