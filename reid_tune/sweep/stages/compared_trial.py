"""A trial with the repeats of the stage `confirm` that compare it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from reid_tune.evaluation.differences import Difference, mean_difference
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.score import score
from reid_tune.execution.fixed_runs import features_file
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState
from reid_tune.search_space.load import SweepConfig

__all__ = ["ComparedTrial", "compared_trial"]


@dataclass(frozen=True)
class ComparedTrial:
    """A trial, or the champion, with its repeats after the race.

    Attributes:
        trial: State of the trial; of the champion its recipe.
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

    def difference_to(self, other: "ComparedTrial", error: float = 0.05) -> Difference:
        """Return the paired difference to another trial on the same splits, above 0 if this one is better.

        Args:
            other: The other trial.
            error: Probability that the interval misses the true difference.
        """
        pairs = zip(self.per_query, other.per_query, strict=True)
        return mean_difference([(values - other_values, ids) for (values, ids), (other_values, _) in pairs], error)


def compared_trial(sweep: SweepConfig, journal: Journal, trial: RunState, repeats: Sequence[int]) -> ComparedTrial:
    """Return a trial with those of its repeats that finished."""
    states = [journal.state.runs[trial.repeat(repeat)] for repeat in repeats]
    runs = tuple(run for run in states if run.state == "finished")
    files = tuple(features_file(journal.folder, run.name) for run in runs)
    return ComparedTrial(trial, runs, files, sweep.file.metric)
