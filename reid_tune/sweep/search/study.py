"""Optuna's part of a search: what to try next."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from reid_tune.errors import FailedRun, InputError
from reid_tune.sweep.file import Sweep
from reid_tune.sweep.space.grid import grid

if TYPE_CHECKING:
    import optuna

__all__ = ["Study", "suggestion_seed"]

# Draws for one suggestion, of which the first that satisfies the constraints is taken.
_OF_TPE, _OF_GP, _AT_RANDOM = 50, 10, 10_000


class Study:
    """Optuna's study in memory, by our names of runs; apart from the sweep's trials it holds ended drafts only."""

    def __init__(self, sweep: Sweep) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(direction="maximize")
        self.space = sweep.space
        self.settings = sweep.file.search
        trials = sweep.file.budget.trials
        self.startup = max(4, min(10, trials // 4))
        self.numbers: dict[str, int] = {}
        self.grid = grid(sweep.space)[: trials - 1] if self.settings.sampler == "grid" else []

    def ask(self, run: str, number: int) -> dict[str, Any]:
        """New parameters for a trial; seed, number and the study alone decide.

        Raises:
            FailedRun: 10,000 random draws do not satisfy the constraints.
        """
        if self.settings.sampler == "grid":
            parameters = self.grid[number - 1]
        else:
            parameters = self._draw_allowed(run, suggestion_seed(self.settings.seed, number))
        self.remember(run, parameters)
        return parameters

    def remember(self, run: str, parameters: Mapping[str, Any]) -> None:
        """A run that has been suggested, perhaps by an earlier process."""
        import optuna

        encoded = self.space.encode(parameters)
        assert encoded is not None
        self._add(*encoded, state=optuna.trial.TrialState.RUNNING)
        self.numbers[run] = len(self.study.get_trials(deepcopy=False)) - 1

    def tell(self, run: str, state: str, value: float | None, epochs: Mapping[int, float]) -> None:
        """The end of a run; one that was not suggested, trial 0, joins only if the spec lies in the space."""
        import optuna

        states = optuna.trial.TrialState
        end = {"finished": states.COMPLETE, "stopped": states.PRUNED}.get(state, states.FAIL)
        if end is states.COMPLETE and value is None:
            end = states.FAIL
        if run in self.numbers:
            trial = optuna.trial.Trial(self.study, self.study.get_trials(deepcopy=False)[self.numbers[run]]._trial_id)
            for epoch, at_epoch in sorted(epochs.items()):
                trial.report(at_epoch, epoch)
            self.study.tell(trial, value if end is states.COMPLETE else None, state=end)
        elif end is states.COMPLETE and self._allowed({}) and (encoded := self.space.encode({})) is not None:
            self._add(*encoded, value=value, intermediate_values=dict(epochs))

    def random_draws(self, seed: int, count: int) -> list[dict[str, Any]]:
        """Configurations at random, without regard to the constraints."""
        import optuna

        sampler = optuna.samplers.RandomSampler(seed=seed)
        with self._draft() as draft:
            return [self._draw(sampler, draft) for _ in range(count)]

    def _draw_allowed(self, run: str, seed: int) -> dict[str, Any]:
        with self._draft() as draft:
            for sampler in self._samplers(seed):
                if self._allowed(parameters := self._draw(sampler, draft)):
                    return parameters
        raise FailedRun(f"{run}: {_AT_RANDOM:,} random configurations break the constraints.")

    @contextmanager
    def _draft(self) -> Iterator["optuna.trial.FrozenTrial"]:
        """A trial in whose name samplers draw; it ends as failed, and failed trials teach no sampler anything."""
        import optuna

        draft = self.study.ask()
        yield self.study.get_trials(deepcopy=False)[draft.number]
        self.study.tell(draft, state=optuna.trial.TrialState.FAIL)

    def _draw(self, sampler: "optuna.samplers.BaseSampler", draft: "optuna.trial.FrozenTrial") -> dict[str, Any]:
        together = sampler.sample_relative(self.study, draft, sampler.infer_relative_search_space(self.study, draft))

        def suggest(name: str, distribution: "optuna.distributions.BaseDistribution") -> Any:
            if name in together:
                return together[name]
            return sampler.sample_independent(self.study, draft, name, distribution)

        return self.space.draw(suggest)

    def _allowed(self, configuration: Mapping[str, Any]) -> bool:
        try:
            return not self.space.broken(configuration)
        except InputError:
            return False  # Preflight met none that cannot be computed; one so rare does not end a sweep.

    def _add(self, params: dict[str, Any], distributions: dict[str, Any], **fields: Any) -> None:
        import optuna

        self.study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, **fields))

    def _samplers(self, seed: int) -> "list[optuna.samplers.BaseSampler]":
        """The samplers of one suggestion, each for one draw."""
        import optuna

        at_random = [optuna.samplers.RandomSampler(seed=seed)] * _AT_RANDOM
        if self.settings.sampler == "random":
            return at_random
        if self.settings.sampler == "gp":
            gp = optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.startup, warn_independent_sampling=False)
            return [gp] * _OF_GP + at_random
        # The most promising of 24 candidates lies again and again where the constraints have kept all trials away;
        # a single one comes from where the best trials are.
        return [self._tpe(seed, 24)] + [self._tpe(seed, 1)] * _OF_TPE + at_random

    def _tpe(self, seed: int, candidates: int) -> "optuna.samplers.BaseSampler":
        import optuna

        conditional = any(parameter.conditions() for parameter in self.space.parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=self.startup,
                n_ei_candidates=candidates,
                constant_liar=True,
                group=conditional,
            )


def suggestion_seed(seed: int, number: int) -> int:
    """The seed of one suggestion, 32 bits that only the sweep's seed and the trial's number decide."""
    return int.from_bytes(blake2b(f"{seed}:{number}".encode(), digest_size=4).digest(), "big")
