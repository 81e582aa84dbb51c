"""Confirm: the best trials and trial 0 again, with other seeds and other hold-outs, and who wins by that."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from reid_tune.errors import RunFailedError
from reid_tune.evaluation.differences import Difference, mean_difference
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.score import score
from reid_tune.execution.fixed_runs import FixedRuns, features_file
from reid_tune.execution.run_source import ONE_CPU, ResourceRequest
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState, SweepState, confirm_run
from reid_tune.search.pareto import pareto_front
from reid_tune.search_space.load import SweepConfig

__all__ = ["Candidate", "select_candidates", "make_confirm_runs", "choose_winner"]


def select_candidates(sweep: SweepConfig, state: SweepState) -> list[RunState]:
    """The trials to be trained again, by number: trial 0 and the best; of several objectives the best of the front.

    Raises:
        RunFailedError: no trial reached its last epoch.
    """
    full = state.finished()
    if not full:
        reasons = sorted({trial.reason for trial in state.trials if trial.reason})
        raise RunFailedError(
            f"no trial of the search reached its last epoch: {'; '.join(reasons) or 'none was started'}."
        )
    best = pareto_front(full, state.metric, sweep.file.costs) if sweep.file.costs else full
    zero = [trial for trial in full if trial.number == 0]
    others = [trial for trial in best if trial.number != 0][: sweep.file.confirm.top]
    return sorted(zero + others, key=lambda trial: trial.number)


def make_confirm_runs(sweep: SweepConfig, journal: Journal, resources: ResourceRequest = ONE_CPU) -> FixedRuns:
    """The repeats: the j-th of every candidate has the spec's training seed + j and its hold-out seed + j."""
    train, dataset = sweep.experiment.train.seed, sweep.experiment.dataset.validation_seed
    runs = {
        confirm_run(trial.number, repeat): {
            **trial.parameters,
            "train.seed": train + repeat,
            "dataset.validation_seed": dataset + repeat,
        }
        for repeat in range(1, sweep.file.confirm.seeds + 1)
        for trial in select_candidates(sweep, journal.state)
    }
    return FixedRuns(sweep, journal, runs, resources, keep_features=True)


@dataclass(frozen=True)
class Candidate:
    """A trial with its repeats.

    Attributes:
        runs: Its repeats, all at full length.
        features: The file of each repeat's embeddings of its hold-out.
        metric: The score that decides.
    """

    trial: RunState
    runs: tuple[RunState, ...]
    features: tuple[Path, ...]
    metric: str

    @cached_property
    def per_query(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each repeat what its queries [m] contribute to the metric, and their identities [m]."""
        scores = [score(read_features(path)) for path in self.features]
        return [(found.per_query[self.metric], found.query_ids) for found in scores]

    @property
    def values(self) -> list[float]:
        """The metric of each repeat."""
        return [float(np.mean(values)) for values, _ in self.per_query]

    def difference_to(self, other: "Candidate") -> Difference:
        """How much better it is than another one, on the same hold-outs."""
        pairs = zip(self.per_query, other.per_query, strict=True)
        return mean_difference([(own - their, identities) for (own, identities), (their, _) in pairs])


def choose_winner(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """The winner: of those that the best one does not beat beyond noise the cheapest, and of equals the earliest.

    Noise is the 95 % interval of the paired difference, see `mean_difference`. A trial that failed in a repeat is out.

    Raises:
        RunFailedError: no trial could be repeated.
    """
    all_repeats = [_candidate(sweep, journal, trial) for trial in select_candidates(sweep, journal.state)]
    whole = [candidate for candidate in all_repeats if len(candidate.runs) == sweep.file.confirm.seeds]
    if not whole:
        raise RunFailedError("no trial could be repeated in all its runs; their logs are below confirm/.")
    best = max(whole, key=lambda candidate: (mean(candidate.values), -candidate.trial.number))
    lead = {candidate.trial.number: best.difference_to(candidate) for candidate in whole if candidate is not best}
    level = [each for each in whole if each is best or not lead[each.trial.number].is_significant]
    winner = min(level, key=lambda each: (*(each.trial.costs[cost] for cost in sweep.file.costs), each.trial.number))
    zero = next((candidate for candidate in whole if candidate.trial.number == 0), None)
    return {
        "winner": winner.trial.number,
        "best": best.trial.number,
        "repeats": sweep.file.confirm.seeds,
        "trials": [_row(each, lead.get(each.trial.number), zero) for each in whole],
        "failed": [each.trial.number for each in all_repeats if each not in whole],
    }


def _candidate(sweep: SweepConfig, journal: Journal, trial: RunState) -> Candidate:
    names = [confirm_run(trial.number, repeat) for repeat in range(1, sweep.file.confirm.seeds + 1)]
    runs = tuple(run for name in names if (run := journal.state.runs[name]).state == "finished")
    files = tuple(features_file(journal.folder, run.name) for run in runs)
    return Candidate(trial, runs, files, sweep.file.metric)


def _row(candidate: Candidate, lead: Difference | None, zero: Candidate | None) -> dict[str, Any]:
    values = candidate.values
    row: dict[str, Any] = {
        "number": candidate.trial.number,
        "runs": [run.name for run in candidate.runs],
        "values": values,
        "mean": mean(values),
        "deviation": stdev(values) if len(values) > 1 else None,
        **_means(candidate),
        "best_against_it": lead.as_dict() if lead else None,
    }
    against = candidate.difference_to(zero).as_dict() if zero and candidate is not zero else None
    return row | {"against_trial0": against}


def _means(candidate: Candidate) -> Mapping[str, float]:
    names = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
    return {name: mean(run.last(name) or 0.0 for run in candidate.runs) for name in names}
