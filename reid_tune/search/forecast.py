"""The forecast of a search: the score that its best configuration reaches, and the gain of a further trial."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reid_tune.errors import InputError
from reid_tune.journal.state import RunState, SweepState
from reid_tune.search.acquisition import expected_improvement
from reid_tune.search.joint_sampler import draw_candidates
from reid_tune.search.recorded_trials import RecordedTrials, ended_trials
from reid_tune.search.trial_model import TrialModel, full_length_points

__all__ = ["Forecast", "Forecaster", "forecast_of"]

_NORMAL_95 = 1.96
# A single forecast of a small gain is often followed by larger ones, when a trial has surprised the model.
_AGREEING = 3
_MAX_COSTS = 20  # evaluations of constraints on costs for one forecast
_KEPT = 2 * _AGREEING  # forecasts, so that the last ones are there after the next end


@dataclass(frozen=True)
class Forecast:
    """What a search is expected to reach; scores are fractions.

    Attributes:
        trial: Number of the full-length trial with the best predicted score.
        mean: Predicted score of a training of its configuration.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        gain: Expected gain over that score by one further trial at full length.
        gain_for_length: Largest expected gain of a further trial, divided by its epochs over those of the spec.
    """

    trial: int
    mean: float
    low: float
    high: float
    gain: float
    gain_for_length: float

    def as_dict(self) -> dict[str, Any]:
        """Return the forecast as plain data."""
        return asdict(self)


class Forecaster:
    """Forecasts by the ended trials of a log, whichever sampler suggested them: equal for equal logs."""

    def __init__(self) -> None:
        self._recorded: RecordedTrials | None = None
        self._forecasts: dict[tuple[tuple[str, int], ...], Forecast | None] = {}

    def forecast(self, state: SweepState) -> Forecast | None:
        """Return the forecast; None with too few trials, or where this version cannot read the space."""
        return self._of_trials(state, ended_trials(state))

    def is_gain_below(self, state: SweepState, least: float, *, for_length: bool) -> bool:
        """Whether a further trial has been expected to gain less than that after each of the last three ends.

        Args:
            state: State of the sweep.
            least: Gain as a fraction.
            for_length: Whether the gain of a trial is divided by its epochs over those of the spec.
        """
        ended = ended_trials(state)
        forecasts = (self._of_trials(state, ended[: len(ended) - omitted]) for omitted in range(_AGREEING))
        return all(
            forecast is not None and (forecast.gain_for_length if for_length else forecast.gain) < least
            for forecast in forecasts
        )

    def _of_trials(self, state: SweepState, runs: Sequence[RunState]) -> Forecast | None:
        key = tuple((run.name, run.epoch) for run in runs)
        if key not in self._forecasts:
            if len(self._forecasts) >= _KEPT:
                del self._forecasts[next(iter(self._forecasts))]
            self._forecasts[key] = self._predict(state, runs)
        return self._forecasts[key]

    def _predict(self, state: SweepState, runs: Sequence[RunState]) -> Forecast | None:
        try:
            self._recorded = self._recorded or RecordedTrials(state)
        except InputError:
            return None
        model = self._recorded.model(runs)
        full_length = [run for run in runs if self._recorded.observe(run).result is not None]
        if model is None or not full_length:
            return None
        means, deviations = model.predict(full_length_points(list(map(self._recorded.observe, full_length))))
        best = int(means.argmax())
        mean, margin = float(means[best]), _NORMAL_95 * float(np.hypot(deviations[best], model.process.noise))
        gains = _expected_gains(self._recorded, model, mean, state, runs)
        return Forecast(full_length[best].number, mean, mean - margin, mean + margin, *gains)


def _expected_gains(
    recorded: RecordedTrials, model: TrialModel, best: float, state: SweepState, runs: Sequence[RunState]
) -> tuple[float, float]:
    """Return the largest expected gain of a new configuration, and the largest one for its length.

    The configurations satisfy the constraints. Those on costs, for which each network takes 0.1 to 0.3 s, are evaluated
    for at most _MAX_COSTS configurations; if none of them passes, the gain of the next one is an upper bound.
    """
    random = np.random.default_rng([state.header.sweep["search"]["seed"], len(runs)])
    tried = [run.parameters for run in runs]
    draws = draw_candidates(recorded.encoding, random, model.best)
    candidates = [configuration for configuration in draws if configuration not in tried]
    if not candidates:
        return 0.0, 0.0
    points = recorded.encoding.points(candidates, [0.0] * len(candidates))
    gains = expected_improvement(*model.predict(points), best)
    full_length = recorded.space.base["train.num_epochs"]
    lengths = np.array([configuration.get("train.num_epochs", full_length) for configuration in candidates])

    def largest(values: np.ndarray) -> float:
        order = np.argsort(-values, kind="stable")
        possible = (index for index in order if recorded.space.allows(candidates[index], with_costs=False))
        for tested, index in enumerate(possible):
            if tested == _MAX_COSTS or recorded.space.allows(candidates[index]):
                return float(values[index])
        return 0.0

    return largest(gains), largest(gains / (lengths / full_length))


def forecast_of(state: SweepState) -> Forecast | None:
    """Return the forecast of a sweep, see `Forecaster.forecast`."""
    return Forecaster().forecast(state)
