"""TPE for the draws of one suggestion, and all uses of Optuna's private interfaces.

`tests/test_private_apis.py` names what moved when a new version of Optuna breaks one of them.
"""

from typing import Any

import optuna
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_gamma_multiobjective
from optuna.trial import TrialState

__all__ = ["SuggestionTpe", "find_trial"]


class SuggestionTpe(optuna.samplers.TPESampler):
    """Multivariate TPE whose draws share the densities, which take far longer to build than a draw.

    It is for one suggestion: the study must not change while it is used.

    Args:
        seed: Seed of the draws.
        startup: Number of ended trials before which draws are random.

    Attributes:
        candidates: Number of samples that are scored for each draw, of which the best one is drawn.
    """

    def __init__(self, seed: int, startup: int) -> None:
        super().__init__(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)
        self.candidates = 24
        self._densities: dict[tuple[str, ...], tuple[Any, Any]] = {}
        self._good_and_bad: tuple[list[Any], list[Any]] | None = None

    def _sample(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Any]:
        names = tuple(search_space)
        if names not in self._densities:
            if self._good_and_bad is None:
                self._good_and_bad = self._split(study, trial)
            good, bad = self._good_and_bad
            self._densities[names] = (
                self._build_parzen_estimator(study, search_space, good, handle_below=True),
                self._build_parzen_estimator(study, search_space, bad, handle_below=False),
            )
        good_density, bad_density = self._densities[names]
        drawn = good_density.sample(self._rng.rng, self.candidates)
        if self.candidates == 1:
            best = {name: values[0].item() for name, values in drawn.items()}
        else:
            best = self._compare(drawn, self._compute_acquisition_func(drawn, good_density, bad_density))
        return {name: distribution.to_external_repr(best[name]) for name, distribution in search_space.items()}

    def _split(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> tuple[list[Any], list[Any]]:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        others = [other for other in study.get_trials(deepcopy=False, states=states) if other.number != trial.number]
        ended = sum(other.state != TrialState.RUNNING for other in others)
        gamma = default_gamma if len(study.directions) == 1 else default_gamma_multiobjective
        return _split_trials(study, others, gamma(ended))


def find_trial(study: optuna.Study, number: int) -> optuna.trial.Trial:
    """Return a trial that was added to a study, so that it can be reported to."""
    return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
