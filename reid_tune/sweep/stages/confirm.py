"""Confirm: train the best trials and trial 0 again with other seeds and validation splits, and choose the winner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from reid_tune.errors import RunFailedError
from reid_tune.evaluation.choice import choose
from reid_tune.evaluation.differences import Difference, mean_difference
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.score import score
from reid_tune.execution.fixed_runs import FixedRuns, features_file
from reid_tune.execution.run_source import ONE_CPU, ResourceRequest
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState, confirm_run, repeat_number
from reid_tune.search.budget import BudgetTracker
from reid_tune.search.candidates import select_candidates
from reid_tune.search_space.load import SweepConfig

__all__ = ["Candidate", "RepeatLimit", "choose_winner", "make_confirm_runs"]


class RepeatLimit:
    """Tells which repeats the budget allows, so that all candidates have the same repeats, and at least the first.

    Args:
        sweep: Sweep with the budget.
        journal: Event log and state.
        budget_tracker: Tracker of the sweep's budget.

    Attributes:
        ended_by: Key of `budget` that has ended the repeats, None while none has.
    """

    def __init__(self, sweep: SweepConfig, journal: Journal, budget_tracker: BudgetTracker) -> None:
        self.sweep, self.journal, self.budget_tracker = sweep, journal, budget_tracker
        self.ended_by: str | None = None

    def __call__(self, run: str) -> bool:
        """Return whether a repeat may begin: the first ones, and others if the budget allows them to all candidates."""
        repeat, candidates = repeat_number(run), select_candidates(self.sweep, self.journal.state)
        if repeat == 1 or any(confirm_run(trial.number, repeat) in self.journal.state.runs for trial in candidates):
            return True
        self.ended_by = self.budget_tracker.next_repeat_limit(candidates)
        return self.ended_by is None


def make_confirm_runs(
    sweep: SweepConfig,
    journal: Journal,
    resources: ResourceRequest = ONE_CPU,
    may_begin: Callable[[str], bool] = lambda _: True,
) -> FixedRuns:
    """Return the repeats: the j-th of every candidate has the spec's training seed + j and validation seed + j.

    Args:
        sweep: Sweep of the candidates.
        journal: Event log and state after the search.
        resources: Resources of each repeat.
        may_begin: Function that tells whether a repeat may begin, see `RepeatLimit`.
    """
    train_seed, validation_seed = sweep.experiment.train.seed, sweep.experiment.dataset.validation_seed
    runs = {
        confirm_run(trial.number, repeat): {
            **trial.parameters,
            "train.seed": train_seed + repeat,
            "dataset.validation_seed": validation_seed + repeat,
        }
        for repeat in range(1, sweep.file.confirm.seeds + 1)
        for trial in select_candidates(sweep, journal.state)
    }
    return FixedRuns(sweep, journal, runs, resources, keep_features=True, may_begin=may_begin)


@dataclass(frozen=True)
class Candidate:
    """A trial with its repeats.

    Attributes:
        trial: State of the trial.
        runs: Its finished repeats.
        features: File of each repeat's embeddings of its validation split.
        metric: Name of the score that decides.
    """

    trial: RunState
    runs: tuple[RunState, ...]
    features: tuple[Path, ...]
    metric: str

    @cached_property
    def per_query(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Contributions of the queries [m] to the metric and their identities [m], for each repeat."""
        scores = [score(read_features(path)) for path in self.features]
        return [(result.per_query[self.metric], result.query_ids) for result in scores]

    @property
    def values(self) -> list[float]:
        """Metric of each repeat."""
        return [float(np.mean(values)) for values, _ in self.per_query]

    def difference_to(self, other: "Candidate") -> Difference:
        """Return the paired difference to another candidate on the same splits, above 0 if this one is better."""
        pairs = zip(self.per_query, other.per_query, strict=True)
        return mean_difference([(values - other_values, ids) for (values, ids), (other_values, _) in pairs])


def choose_winner(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """Choose the winner: the best mean, or with cost objectives a cheaper candidate that loses little, see `choose`.

    A candidate that failed in a repeat is excluded. A gain over trial 0 is claimed only where the interval of
    `mean_difference` says so.

    Returns:
        Result of the stage, as plain data.

    Raises:
        RunFailedError: no candidate finished all its repeats.
    """
    trials = select_candidates(sweep, journal.state)
    repeats = [
        repeat
        for repeat in range(1, sweep.file.confirm.seeds + 1)
        if all(confirm_run(trial.number, repeat) in journal.state.runs for trial in trials)
    ]
    candidates = [_candidate(sweep, journal, trial, repeats) for trial in trials]
    complete = [candidate for candidate in candidates if len(candidate.runs) == len(repeats)]
    if not complete:
        raise RunFailedError("no trial finished all its repeats; their logs are in confirm/.")
    best = max(complete, key=lambda candidate: (mean(candidate.values), -candidate.trial.number))
    leads = {candidate.trial.number: best.difference_to(candidate) for candidate in complete if candidate is not best}
    costs = [_costs(sweep, candidate) for candidate in complete]
    values = np.array([candidate.values for candidate in complete])
    winner = complete[choose(values, costs, sweep.file.confirm.margin / 100)]
    baseline = next((candidate for candidate in complete if candidate.trial.number == 0), None)
    return {
        "winner": winner.trial.number,
        "best": best.trial.number,
        "repeats": len(repeats),
        "trials": [_row(candidate, leads.get(candidate.trial.number), baseline) for candidate in complete],
        "failed": [candidate.trial.number for candidate in candidates if candidate not in complete],
    }


def _costs(sweep: SweepConfig, candidate: Candidate) -> list[float]:
    return [candidate.trial.costs[name] for name in sweep.file.costs]


def _candidate(sweep: SweepConfig, journal: Journal, trial: RunState, repeats: Sequence[int]) -> Candidate:
    states = [journal.state.runs[confirm_run(trial.number, repeat)] for repeat in repeats]
    runs = tuple(run for run in states if run.state == "finished")
    files = tuple(features_file(journal.folder, run.name) for run in runs)
    return Candidate(trial, runs, files, sweep.file.metric)


def _row(candidate: Candidate, lead: Difference | None, baseline: Candidate | None) -> dict[str, Any]:
    values = candidate.values
    against_baseline = None if baseline is None or candidate is baseline else candidate.difference_to(baseline)
    return {
        "number": candidate.trial.number,
        "runs": [run.name for run in candidate.runs],
        "values": values,
        "mean": mean(values),
        "deviation": stdev(values) if len(values) > 1 else None,
        **_means(candidate),
        "best_against_it": lead.as_dict() if lead else None,
        "against_trial0": against_baseline.as_dict() if against_baseline else None,
    }


def _means(candidate: Candidate) -> Mapping[str, float]:
    names = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
    return {name: mean(run.last(name) or 0.0 for run in candidate.runs) for name in names}
