"""The searched parameters of a sweep as its trials have them, and how much each one matters."""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from reid_tune.spec.experiment import canonical
from reid_tune.sweep.state import RunState, SweepState

__all__ = ["FEWEST", "Searched", "importances", "searched"]

# Full-length trials below which importances would be drawn noise.
FEWEST = 10


@dataclass(frozen=True)
class Searched:
    """One searched key.

    Attributes:
        range: What the sweep file says of it.
        base: The spec's own value, that of trial 0.
    """

    key: str
    range: Any
    base: Any

    @property
    def label(self) -> str:
        """The last part of the key; two parts where one tells little."""
        parts = self.key.split(".")
        return ".".join(parts[-2:]) if parts[-1] == "name" else parts[-1]

    @property
    def log(self) -> bool:
        """Whether a range of it is logarithmic."""
        return '"log' in json.dumps(self.range)

    def of(self, trials: list[RunState]) -> dict[int, Any]:
        """Its values by number of those trials that have one: a condition may leave it out."""
        return {
            trial.number: trial.parameters.get(self.key, self.base)
            for trial in trials
            if self.key in trial.parameters or trial.number == 0
        }

    def numeric(self, trials: list[RunState]) -> bool:
        """Whether it has a range of numbers and not a list of choices; the spec's own value may be null."""
        choice = '"choice"' in json.dumps(self.range)
        return not choice and all(isinstance(value, (int, float, NoneType)) for value in self.of(trials).values())

    def names(self, trials: list[RunState]) -> list[str]:
        """Its values as JSON, each once; numbers by size."""
        values = {json.dumps(value): value for value in self.of(trials).values()}
        return sorted(values, key=lambda name: (values[name] if isinstance(values[name], (int, float)) else 0, name))


def searched(state: SweepState) -> list[Searched]:
    """The keys that trials search, in the file's order."""
    header = state.header
    ranges = {canonical(key): entry for key, entry in header["sweep"].get("space", {}).items()}
    ranges = {key: entry for key, entry in ranges.items() if not key.startswith("re_ranking.")}
    keys = dict.fromkeys([*ranges, *(key for trial in state.trials for key in trial.parameters)])
    return [Searched(key, ranges.get(key), header["spec"].get(key)) for key in keys]


def importances(state: SweepState, metric: str) -> dict[str, float]:
    """The share of each searched key in what sets the better half of the full-length trials apart, largest first.

    Optuna's PED-ANOVA (Watanabe et al., IJCAI 2023); the sum is 1. Empty with fewer than FEWEST full-length trials.
    """
    trials = state.finished()
    varied = [key for key in searched(state) if _varies(key, trials)]
    if len(trials) < FEWEST or not varied:
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


def _varies(key: Searched, trials: list[RunState]) -> bool:
    """Whether a key can explain anything: one value in all trials does not, nor a list that each trial has anew."""
    values = len(key.names(trials))
    return values > 1 and (key.numeric(trials) or values <= len(trials) / 2)


def _column(key: Searched, trials: list[RunState]) -> tuple[Any, dict[int, Any]]:
    """The range that the trials span, as the spec's own value may lie outside that of the file, and their values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = key.of(trials)
    if not key.numeric(trials):
        return CategoricalDistribution(key.names(trials)), {at: json.dumps(value) for at, value in values.items()}
    values = {at: value for at, value in values.items() if value is not None}
    low, high = min(values.values()), max(values.values())
    kind = IntDistribution if all(isinstance(value, int) for value in values.values()) else FloatDistribution
    return kind(low, high, log=key.log and low > 0), values
