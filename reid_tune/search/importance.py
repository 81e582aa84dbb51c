"""The importance of each searched parameter."""

import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

from reid_tune.journal.state import RunState, SweepState
from reid_tune.search.parameters import SearchedParameter, searched_parameters

__all__ = ["MIN_TRIALS", "parameter_importances"]


# Full-length trials below which importances would be drawn noise.
MIN_TRIALS = 10


def parameter_importances(state: SweepState, metric: str) -> dict[str, float]:
    """The share of each searched key in what sets the better half of the full-length trials apart, largest first.

    Optuna's PED-ANOVA (Watanabe et al., IJCAI 2023); the sum is 1. Empty with fewer than FEWEST full-length trials.
    """
    trials = state.finished()
    varied = [key for key in searched_parameters(state) if _varies(key, trials)]
    if len(trials) < MIN_TRIALS or not varied:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    columns = {key.key: _column(key, trials) for key in varied}
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        own = {key: values[trial.number] for key, (_, values) in columns.items() if trial.number in values}
        ranges = {key: columns[key][0] for key in own}
        study.add_trial(optuna.trial.create_trial(params=own, distributions=ranges, value=trial.last(metric)))
    # Of the few trials that a sweep finishes, the default's best tenth is one or two.
    better_half = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of trials that lack a parameter.
        found: Mapping[str, float] = optuna.importance.get_param_importances(study, evaluator=better_half)
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _varies(key: SearchedParameter, trials: list[RunState]) -> bool:
    """Whether a key can explain anything: one value in all trials does not, nor a list that each trial has anew."""
    values = len(key.value_names(trials))
    return values > 1 and (key.is_numeric(trials) or values <= len(trials) / 2)


def _column(key: SearchedParameter, trials: list[RunState]) -> tuple[Any, dict[int, Any]]:
    """The range that the trials span, as the spec's own value may lie outside that of the file, and their values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = key.values_by_trial(trials)
    if not key.is_numeric(trials):
        return CategoricalDistribution(key.value_names(trials)), {at: json.dumps(value) for at, value in values.items()}
    values = {at: value for at, value in values.items() if value is not None}
    low, high = min(values.values()), max(values.values())
    kind = IntDistribution if all(isinstance(value, int) for value in values.values()) else FloatDistribution
    return kind(low, high, log=key.is_logarithmic and low > 0), values
