"""The sampler `tpe`: Optuna's tree-structured Parzen estimator."""

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import repeat
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from reid_tune.journal.state import trial_run
from reid_tune.search.sampler import Sampler, TrialEnd, suggestion_seed
from reid_tune.search.tpe import SuggestionTpe, find_trial
from reid_tune.search_space.space import SearchSpace

__all__ = ["TpeSampler", "TrialOutcome", "outcome_of"]

_DRAWS = 50  # for one suggestion, after the best one
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


def outcome_of(end: TrialEnd) -> TrialOutcome:
    """Return the end of a trial in Optuna's terms."""
    state, value, epochs, costs, failure = end
    if state == "finished" and value is not None and math.isfinite(value):
        return TrialOutcome(TrialState.COMPLETE, [value, *costs], {} if costs else epochs)
    if state == "stopped" and not epochs:  # Stopped by a user or the budget before its first score.
        return TrialOutcome(TrialState.FAIL, None, {})
    if state == "stopped" and costs:
        # Optuna orders pruned trials by their values only with one objective, and raises an error with several; it
        # always orders by violations. So TPE ranks these trials by epoch, then by score, after all complete ones.
        last, score = max(epochs.items())
        return TrialOutcome(TrialState.PRUNED, None, {}, 1 / (1 + last + score))
    if state == "stopped":
        return TrialOutcome(TrialState.PRUNED, None, epochs)
    if failure in _VIOLATIONS:
        return TrialOutcome(TrialState.PRUNED, None, {}, _VIOLATIONS[failure])
    return TrialOutcome(TrialState.FAIL, None, {})


class TpeSampler(Sampler):
    """Optuna's study in memory, addressed by names of runs.

    In addition to the sweep's trials it has only failed drafts, see `_draft`. The objectives are the score, which is
    maximized, and the costs of the search-space file, which are minimized.

    Args:
        space: Search space.
        seed: Seed of the search.
        startup: Number of ended trials before which draws are random.
        costs: Number of further objectives.
    """

    def __init__(self, space: SearchSpace, seed: int, startup: int, costs: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(directions=["maximize"] + ["minimize"] * costs)
        self.space = space
        self.seed = seed
        self.startup = startup
        self.numbers: dict[str, int] = {}
        self.groups = space.conditional_groups()

    def add(self, run: str, configuration: Mapping[str, Any]) -> None:
        """Add a running trial. Optuna gets it only if it is inside of the ranges, and trial 0 only at its end."""
        encoded = self.space.encode(configuration)
        if encoded is not None and run != trial_run(0):
            self._add(*encoded, state=TrialState.RUNNING)
            self.numbers[run] = len(self.study.get_trials(deepcopy=False)) - 1

    def end(self, run: str, end: TrialEnd) -> None:
        """Record the end of a trial. Trial 0 is added if it is full-length and the spec is inside of the space."""
        outcome = outcome_of(end)
        if run in self.numbers:
            trial = find_trial(self.study, self.numbers[run])
            for epoch, score in sorted(outcome.epochs.items()):
                trial.report(score, epoch)
            trial.set_constraint("trainable", outcome.violation)
            self.study.tell(trial, outcome.values, state=outcome.state)
        elif run == trial_run(0) and outcome.state == TrialState.COMPLETE and self.space.allows({}):
            encoded = self.space.encode({})
            if encoded is not None:
                self._add(
                    *encoded,
                    state=outcome.state,
                    values=outcome.values,
                    intermediate_values=dict(outcome.epochs),
                    constraints={"trainable": outcome.violation},
                )

    def candidates(self, number: int) -> Generator[dict[str, Any], None, None]:
        tpe = SuggestionTpe(suggestion_seed(self.seed, number), self.startup)
        with self._draft() as draft:
            yield self._draw(tpe, draft)
            # The best of many candidates is again and again in a region that the constraints have kept free of trials.
            # A single candidate comes from where the best trials are.
            tpe.candidates = 1
            for _ in repeat(None, _DRAWS):
                yield self._draw(tpe, draft)

    @contextmanager
    def _draft(self) -> Iterator[optuna.trial.FrozenTrial]:
        """Yield a trial for which TPE draws. It ends as failed, and TPE ignores failed trials."""
        draft = self.study.ask()
        try:
            yield self.study.get_trials(deepcopy=False)[draft.number]
        finally:
            self.study.tell(draft, state=TrialState.FAIL)

    def _draw(self, tpe: SuggestionTpe, draft: optuna.trial.FrozenTrial) -> dict[str, Any]:
        drawn: dict[str, Any] = {}

        def suggest(name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
            if name not in drawn:
                drawn.update(tpe.sample_relative(self.study, draft, self.groups[name]))
            if name in drawn:
                return drawn[name]
            return tpe.sample_independent(self.study, draft, name, distribution)

        return self.space.draw(suggest)

    def _add(self, params: dict[str, Any], distributions: dict[str, Any], **fields: Any) -> None:
        self.study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, **fields))
