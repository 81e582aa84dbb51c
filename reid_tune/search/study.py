"""Optuna's part of a search: what to try next."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from reid_tune.errors import InputError, RunFailedError
from reid_tune.journal.state import trial_run
from reid_tune.search_space.space import grid_configurations
from reid_tune.search_space.load import SweepConfig

if TYPE_CHECKING:
    import optuna

    from reid_tune.search.trial_outcome import TrialOutcome

__all__ = ["Study", "suggestion_seed"]

# Draws for one suggestion, of which the first that satisfies the constraints is taken.
_OF_TPE, _OF_GP, _AT_RANDOM = 50, 10, 10_000


class Study:
    """Optuna's study in memory, by our names of runs; apart from the sweep's trials it holds ended drafts only.

    The objectives are the score, which is maximized, and the costs of the sweep file, which are minimized.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(directions=["maximize"] + ["minimize"] * len(sweep.file.costs))
        self.space = sweep.space
        self.settings = sweep.file.search
        trials = sweep.file.budget.trials
        self.startup = max(4, min(10, trials // 4))
        self.numbers: dict[str, int] = {}
        self.groups = sweep.space.conditional_groups()
        # The combinations that are left.
        self.grid = grid_configurations(sweep.space)[: trials - 1] if self.settings.sampler == "grid" else []

    def ask(self, run: str, number: int) -> dict[str, Any]:
        """New parameters for a trial; seed, number and the study alone decide.

        Raises:
            RunFailedError: 10,000 random draws do not satisfy the constraints, or nothing is left of a grid.
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
        """A run that has been suggested, perhaps by an earlier process; Optuna knows it only inside the ranges."""
        import optuna

        if parameters in self.grid:
            self.grid.remove(dict(parameters))
        if (encoded := self.space.encode(parameters)) is not None:
            self._add(*encoded, state=optuna.trial.TrialState.RUNNING)
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
        """The end of a run; trial 0, which nobody suggested, joins full-length and only if the spec lies in the space.

        Args:
            state: finished, stopped or failed.
            value: The score.
            epochs: The score by epoch.
            costs: Of the further objectives, in the order of the sweep file.
            failure: Out of memory and diverged trials are lessons; of other failures the sampler learns nothing.
        """
        import optuna

        from reid_tune.search.trial_outcome import outcome_of

        lesson, complete = outcome_of(state, value, epochs, costs, failure), optuna.trial.TrialState.COMPLETE
        if self.settings.sampler == "gp" and state == "failed" and lesson.violation > 0:
            # It learns from complete trials only: this one is as bad as the worst, and breaks the constraint.
            known = self.study.get_trials(deepcopy=False, states=[complete])
            worst = min((trial.values[0] for trial in known), default=0.0)
            lesson = lesson._replace(end=complete, values=[worst, *costs])
        if run in self.numbers:
            self._end(self.numbers[run], lesson)
        elif run == trial_run(0) and state == "finished" and self._allowed({}) and (found := self.space.encode({})):
            told: dict[str, Any] = {"values": lesson.values, "intermediate_values": dict(lesson.epochs)}
            self._add(*found, state=lesson.end, **told, constraints={"trainable": lesson.violation})

    def random_draws(self, seed: int, count: int) -> list[dict[str, Any]]:
        """Configurations at random, without regard to the constraints."""
        import optuna

        sampler = optuna.samplers.RandomSampler(seed=seed)
        with self._draft() as draft:
            return [self._draw(sampler, draft) for _ in range(count)]

    def _draw_allowed(self, run: str, seed: int) -> dict[str, Any]:
        # Optuna's Gaussian process divides by zero where it has converged, and goes on.
        with self._draft() as draft, np.errstate(invalid="ignore"):
            for sampler in self._samplers(seed):
                if self._allowed(parameters := self._draw(sampler, draft)):
                    return parameters
        raise RunFailedError(f"{run}: {_AT_RANDOM:,} random configurations break the constraints.")

    @contextmanager
    def _draft(self) -> Iterator["optuna.trial.FrozenTrial"]:
        """A trial in whose name samplers draw; it ends as failed, and failed trials teach no sampler anything."""
        import optuna

        draft = self.study.ask()
        yield self.study.get_trials(deepcopy=False)[draft.number]
        self.study.tell(draft, state=optuna.trial.TrialState.FAIL)

    def _draw(self, sampler: "optuna.samplers.BaseSampler", draft: "optuna.trial.FrozenTrial") -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        groups = self.groups
        if self.settings.sampler != "tpe":
            found = sampler.infer_relative_search_space(self.study, draft)
            groups = dict.fromkeys(found, found)

        def suggest(name: str, distribution: "optuna.distributions.BaseDistribution") -> Any:
            if name in groups and name not in drawn:
                drawn.update(sampler.sample_relative(self.study, draft, groups[name]))
            if name in drawn:
                return drawn[name]
            return sampler.sample_independent(self.study, draft, name, distribution)

        return self.space.draw(suggest)

    def _allowed(self, configuration: Mapping[str, Any]) -> bool:
        try:
            return not self.space.broken_constraints(configuration)
        except InputError:
            return False  # Preflight met none that cannot be computed; one so rare does not end a sweep.

    def _add(self, params: dict[str, Any], distributions: dict[str, Any], **fields: Any) -> None:
        import optuna

        self.study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, **fields))

    def _end(self, number: int, lesson: "TrialOutcome") -> None:
        import optuna

        trial = optuna.trial.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)
        for epoch, score in sorted(lesson.epochs.items()):
            trial.report(score, epoch)
        trial.set_constraint("trainable", lesson.violation)
        self.study.tell(trial, lesson.values, state=lesson.end)

    def _samplers(self, seed: int) -> "Iterator[optuna.samplers.BaseSampler]":
        """The samplers of one suggestion, each for one draw."""
        import optuna

        if self.settings.sampler == "tpe":
            from reid_tune.search.tpe import SuggestionTpe

            tpe = SuggestionTpe(seed, self.startup)
            yield tpe
            # The most promising of many candidates lies again and again where the constraints have kept all trials
            # away; a single one comes from where the best trials are.
            tpe.candidates = 1
            yield from repeat(tpe, _OF_TPE)
        elif self.settings.sampler == "gp":
            gp = optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.startup, warn_independent_sampling=False)
            yield from repeat(gp, _OF_GP)
        yield from repeat(optuna.samplers.RandomSampler(seed=seed), _AT_RANDOM)


def suggestion_seed(seed: int, number: int) -> int:
    """The seed of one suggestion, 32 bits that only the sweep's seed and the trial's number decide."""
    return int.from_bytes(blake2b(f"{seed}:{number}".encode(), digest_size=4).digest(), "big")
