"""Optuna's study of a search: suggest configurations, learn from the trials."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState

from reid_tune.errors import InputError, RunFailedError
from reid_tune.journal.state import trial_run
from reid_tune.search.tpe import SuggestionTpe, find_trial
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.space import grid_configurations

__all__ = ["Study", "TrialOutcome", "outcome_of", "suggestion_seed"]

# Draws for one suggestion. The first one that satisfies the constraints is used.
_TPE_DRAWS, _GP_DRAWS, _RANDOM_DRAWS = 50, 10, 10_000
# Constraint violations of trials that cannot be trained, by kind of failure.
_VIOLATIONS = {"non_finite": 2.0, "out_of_memory": 3.0}


class TrialOutcome(NamedTuple):
    """End of a trial in Optuna's terms.

    Attributes:
        state: Optuna's state.
        values: Values of the objectives, None if the trial has none.
        epochs: Score by 1-based epoch.
        violation: Value of the constraint `trainable`, above 0 for a trial that cannot be trained.
    """

    state: TrialState
    values: list[float] | None
    epochs: Mapping[int, float]
    violation: float = -1.0


def outcome_of(
    state: str, value: float | None, epochs: Mapping[int, float], costs: Sequence[float], failure: str
) -> TrialOutcome:
    """Return the outcome of a trial that has finished, was stopped or failed; for the arguments see `Study.tell`."""
    if state == "finished" and value is not None and math.isfinite(value):
        return TrialOutcome(TrialState.COMPLETE, [value, *costs], {} if costs else epochs)
    if state == "stopped" and costs:
        # Optuna orders pruned trials by their values only with one objective, and raises an error with several; it
        # always orders by violations. So TPE ranks these trials by epoch, then by score, after all complete ones.
        last, score = max(epochs.items(), default=(0, 0.0))
        return TrialOutcome(TrialState.PRUNED, None, {}, 1 / (1 + last + score))
    if state == "stopped":
        return TrialOutcome(TrialState.PRUNED, None, epochs)
    if failure in _VIOLATIONS:
        return TrialOutcome(TrialState.PRUNED, None, {}, _VIOLATIONS[failure])
    return TrialOutcome(TrialState.FAIL, None, {})


class Study:
    """Optuna's study in memory, addressed by names of runs.

    In addition to the sweep's trials it has only failed drafts, see `_draft`. The objectives are the score, which is
    maximized, and the costs of the search-space file, which are minimized.

    Args:
        sweep: Sweep of the search.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(directions=["maximize"] + ["minimize"] * len(sweep.file.costs))
        self.space = sweep.space
        self.settings = sweep.file.search
        trials = sweep.file.budget.trials
        self.startup = max(4, min(10, trials // 4))
        self.numbers: dict[str, int] = {}
        self.groups = sweep.space.conditional_groups()
        # Combinations that no trial has yet.
        self.grid = grid_configurations(sweep.space)[: trials - 1] if self.settings.sampler == "grid" else []

    def ask(self, run: str, number: int) -> dict[str, Any]:
        """Suggest a configuration for a trial, determined by the seed, the trial's number and the study.

        Raises:
            RunFailedError: 10,000 random draws break the constraints, or nothing is left of a grid.
        """
        if self.settings.sampler != "grid":
            parameters = self._draw_allowed(run, suggestion_seed(self.settings.seed, number))
        elif self.grid:
            parameters = self.grid[0]
        else:
            raise RunFailedError(f"{run}: nothing is left of the grid.")
        self.add_trial(run, parameters)
        return parameters

    def add_trial(self, run: str, parameters: Mapping[str, Any]) -> None:
        """Add a running trial, perhaps of an earlier process. Optuna gets it only if it is inside of the ranges."""
        if parameters in self.grid:
            self.grid.remove(dict(parameters))
        encoded = self.space.encode(parameters)
        if encoded is not None:
            self._add(*encoded, state=TrialState.RUNNING)
            self.numbers[run] = len(self.study.get_trials(deepcopy=False)) - 1

    def tell(
        self,
        run: str,
        state: str,
        value: float | None,
        epochs: Mapping[int, float],
        *,
        costs: Sequence[float] = (),
        failure: str = "",
    ) -> None:
        """Record the end of a trial.

        Trial 0, which no sampler suggested, is added if it is full-length and the spec is inside of the space.

        Args:
            run: Name of the trial's run.
            state: finished, stopped or failed.
            value: Score.
            epochs: Score by 1-based epoch.
            costs: Values of the further objectives, in the order of the search-space file.
            failure: Kind of the failure. The sampler learns from memory errors and diverged losses, not from others.
        """
        outcome = outcome_of(state, value, epochs, costs, failure)
        if self.settings.sampler == "gp" and state == "failed" and outcome.violation > 0:
            # GPSampler learns from complete trials only: this one is as bad as the worst, and breaks the constraint.
            complete = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            worst = min((trial.values[0] for trial in complete), default=0.0)
            outcome = outcome._replace(state=TrialState.COMPLETE, values=[worst, *costs])
        if run in self.numbers:
            self._end(self.numbers[run], outcome)
        elif run == trial_run(0) and state == "finished" and self._is_allowed({}):
            encoded = self.space.encode({})
            if encoded is not None:
                self._add(
                    *encoded,
                    state=outcome.state,
                    values=outcome.values,
                    intermediate_values=dict(outcome.epochs),
                    constraints={"trainable": outcome.violation},
                )

    def random_draws(self, seed: int, count: int) -> list[dict[str, Any]]:
        """Return random configurations, which may break the constraints."""
        sampler = optuna.samplers.RandomSampler(seed=seed)
        with self._draft() as draft:
            return [self._draw(sampler, draft) for _ in range(count)]

    def _draw_allowed(self, run: str, seed: int) -> dict[str, Any]:
        # Optuna's Gaussian process divides by zero once it has converged, and continues.
        with self._draft() as draft, np.errstate(invalid="ignore"):
            for sampler in self._samplers(seed):
                parameters = self._draw(sampler, draft)
                if self._is_allowed(parameters):
                    return parameters
        raise RunFailedError(
            f"{run}: {_RANDOM_DRAWS:,} random configurations break the constraints: loosen them or widen the ranges."
        )

    @contextmanager
    def _draft(self) -> Iterator[optuna.trial.FrozenTrial]:
        """Yield a trial for which samplers draw. It ends as failed, and samplers ignore failed trials."""
        draft = self.study.ask()
        yield self.study.get_trials(deepcopy=False)[draft.number]
        self.study.tell(draft, state=TrialState.FAIL)

    def _draw(self, sampler: optuna.samplers.BaseSampler, draft: optuna.trial.FrozenTrial) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        groups = self.groups
        if self.settings.sampler != "tpe":
            relative = sampler.infer_relative_search_space(self.study, draft)
            groups = dict.fromkeys(relative, relative)

        def suggest(name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
            if name in groups and name not in drawn:
                drawn.update(sampler.sample_relative(self.study, draft, groups[name]))
            if name in drawn:
                return drawn[name]
            return sampler.sample_independent(self.study, draft, name, distribution)

        return self.space.draw(suggest)

    def _is_allowed(self, configuration: Mapping[str, Any]) -> bool:
        try:
            return not self.space.broken_constraints(configuration)
        except InputError:
            # A constraint that cannot be computed: so rare that preflight did not meet it, it does not end a sweep.
            return False

    def _add(self, params: dict[str, Any], distributions: dict[str, Any], **fields: Any) -> None:
        self.study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, **fields))

    def _end(self, number: int, outcome: TrialOutcome) -> None:
        trial = find_trial(self.study, number)
        for epoch, score in sorted(outcome.epochs.items()):
            trial.report(score, epoch)
        trial.set_constraint("trainable", outcome.violation)
        self.study.tell(trial, outcome.values, state=outcome.state)

    def _samplers(self, seed: int) -> Iterator[optuna.samplers.BaseSampler]:
        """Yield the samplers of one suggestion, each for one draw."""
        if self.settings.sampler == "tpe":
            tpe = SuggestionTpe(seed, self.startup)
            yield tpe
            # The best of many candidates is again and again in a region that the constraints have kept free of trials.
            # A single candidate comes from where the best trials are.
            tpe.candidates = 1
            yield from repeat(tpe, _TPE_DRAWS)
        elif self.settings.sampler == "gp":
            gp = optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.startup, warn_independent_sampling=False)
            yield from repeat(gp, _GP_DRAWS)
        yield from repeat(optuna.samplers.RandomSampler(seed=seed), _RANDOM_DRAWS)


def suggestion_seed(seed: int, number: int) -> int:
    """Return the 32-bit seed of one suggestion, determined by the sweep's seed and the trial's number."""
    return int.from_bytes(blake2b(f"{seed}:{number}".encode(), digest_size=4).digest(), "big")
