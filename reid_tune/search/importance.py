"""The importance of each searched parameter."""

import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

from reid_tune.journal.state import RunState, SweepState
from reid_tune.search.parameters import SearchedParameter, searched_parameters

__all__ = ["MIN_TRIALS", "parameter_importances"]


# Number of full-length trials below which importances would be noise.
MIN_TRIALS = 10


def parameter_importances(state: SweepState, metric: str) -> dict[str, float]:
    """Return the importance of each searched key, the largest first; their sum is 1.

    The importance is the share in what sets the better half of the full-length trials apart, by Optuna's PED-ANOVA
    (Watanabe et al., IJCAI 2023). It is empty with fewer than MIN_TRIALS full-length trials.

    Args:
        state: State of a sweep.
        metric: Name of the score.
    """
    trials = state.finished()
    varied = [parameter for parameter in searched_parameters(state) if _varies(parameter, trials)]
    if len(trials) < MIN_TRIALS or not varied:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    columns = {parameter.key: _column(parameter, trials) for parameter in varied}
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        params = {key: values[trial.number] for key, (_, values) in columns.items() if trial.number in values}
        ranges = {key: columns[key][0] for key in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=trial.last(metric)))
    # The default, the best tenth, would be one or two of the trials that a sweep finishes.
    better_half = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns of trials that lack a parameter.
        importances: Mapping[str, float] = optuna.importance.get_param_importances(study, evaluator=better_half)
    return {key: value for key, value in importances.items() if math.isfinite(value)}


def _varies(parameter: SearchedParameter, trials: list[RunState]) -> bool:
    """Whether a parameter can explain anything: not with one value in all trials, nor with a different list in each."""
    count = len(parameter.value_names(trials))
    return count > 1 and (parameter.is_numeric(trials) or count <= len(trials) / 2)


def _column(parameter: SearchedParameter, trials: list[RunState]) -> tuple[Any, dict[int, Any]]:
    """Return the range that the trials span, and their values by trial number.

    It is not the range of the file, as the spec's value may be outside of that.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = parameter.values_by_trial(trials)
    if not parameter.is_numeric(trials):
        return CategoricalDistribution(parameter.value_names(trials)), {
            number: json.dumps(value) for number, value in values.items()
        }
    values = {number: value for number, value in values.items() if value is not None}
    low, high = min(values.values()), max(values.values())
    kind = IntDistribution if all(isinstance(value, int) for value in values.values()) else FloatDistribution
    return kind(low, high, log=parameter.is_logarithmic and low > 0), values
