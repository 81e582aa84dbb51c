"""Equal models for `calibration.py`: recorded trainings of one configuration, and simulations."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from reid_tune.errors import InputError

__all__ = ["NullModel", "Repeat", "SimulatedTrainings", "TrainingTable", "read_summary_table", "read_trainings"]

HELD_OUT = 0.2  # `dataset.validation_fraction`
# Deviation of the difference of two trainings in the average precision of one identity; 0.197 in `null_trainings.json`.
RESIDUAL = 0.2
_MOST_QUERIES = 6


@dataclass(frozen=True)
class Repeat:
    """One hold-out with a training of each model.

    Attributes:
        identities: Held-out identities [m].
        queries: Number of queries of each [m].
        differences: Mean difference of each to the baseline, as a fraction [models, m].
    """

    identities: np.ndarray
    queries: np.ndarray
    differences: np.ndarray

    def values(self, model: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return difference and identity of each query."""
        return np.repeat(self.differences[model], self.queries), np.repeat(self.identities, self.queries)


class NullModel(Protocol):
    """Source of repeats of equal models."""

    def draw(self, rng: Generator, repeats: int, models: int = 1) -> list[Repeat]:
        """Draw repeats of a baseline and of models that are as good.

        Args:
            rng: Generator of the draws.
            repeats: Number of repeats, each with another hold-out.
            models: Number of models without the baseline.
        """


@dataclass(frozen=True)
class SimulatedTrainings:
    """Normal effects of seeds, of identities that one model always ranks better, and of both together.

    Attributes:
        deviation: Standard deviation of a model's score between training seeds, as a fraction.
        held_out: Expected number of held-out identities.
        persistent: Standard deviation, between identities, of the difference of two models in all trainings.
        collapse: Loss of one in five trainings of the models, whose other trainings gain a quarter of it: the mean
            stays 0.
    """

    deviation: float
    held_out: int
    persistent: float = 0.05
    collapse: float = 0.0

    def draw(self, rng: Generator, repeats: int, models: int = 1) -> list[Repeat]:
        pool = round(self.held_out / HELD_OUT)
        queries = rng.integers(1, _MOST_QUERIES + 1, pool)
        effects = rng.normal(0, self.persistent / 2**0.5, (models + 1, pool))
        return [self._repeat(rng, queries, effects) for _ in range(repeats)]

    def _repeat(self, rng: Generator, queries: np.ndarray, effects: np.ndarray) -> Repeat:
        held = np.flatnonzero(rng.random(len(queries)) < HELD_OUT)
        scores = effects[:, held] + rng.normal(0, RESIDUAL / 2**0.5, (len(effects), len(held)))
        scores += rng.normal(0, self.deviation, (len(effects), 1))
        has_collapsed = rng.random((len(effects) - 1, 1)) < 0.2
        scores[1:] += np.where(has_collapsed, -self.collapse, self.collapse / 4)
        return Repeat(held, queries[held], scores[1:] - scores[0])


@dataclass(frozen=True)
class TrainingTable:
    """Recorded trainings of one configuration, with all pairs of a seed and a hold-out.

    Attributes:
        trainings: For each hold-out, by seed: identities, queries and mean average precision of each identity.
    """

    trainings: Sequence[Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]]

    def draw(self, rng: Generator, repeats: int, models: int = 1) -> list[Repeat]:
        holdouts = rng.choice(len(self.trainings), repeats, replace=False)
        return [self._repeat(rng, self.trainings[holdout], models) for holdout in holdouts]

    def _repeat(
        self, rng: Generator, trainings: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], models: int
    ) -> Repeat:
        baseline, *others = (trainings[seed] for seed in rng.choice(len(trainings), models + 1, replace=False))
        return Repeat(baseline[0], baseline[1], np.array([other[2] - baseline[2] for other in others]))


def read_trainings(path: Path) -> TrainingTable:
    """Read the trainings that `null_trainings.py` has recorded; hold-outs that lack a seed are left out."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    groups = [
        [
            (np.array(row["identities"]), np.array(row["queries"]), np.array(row["sums"]) / np.array(row["queries"]))
            for row in rows
            if row["holdout"] == holdout
        ]
        for holdout in sorted({row["holdout"] for row in rows})
    ]
    seeds = len({row["seed"] for row in rows})
    return TrainingTable([group for group in groups if len(group) == seeds])


def read_summary_table(path: Path) -> TrainingTable:
    """Read lines of seed, hold-out, mAP, queries and identities, and draw the identities around each mAP.

    Raises:
        InputError: A line does not have five numbers.
    """
    rng = np.random.default_rng(0)
    try:
        rows = np.loadtxt(path, ndmin=2)
        _, holdouts, _, _, _ = rows.T
    except ValueError:
        raise InputError(
            f"{path} is not a table of trainings; give lines of seed, hold-out, mAP, queries and identities."
        ) from None
    return TrainingTable([list(_drawn_identities(rows[holdouts == key], rng)) for key in np.unique(holdouts)])


def _drawn_identities(rows: np.ndarray, rng: Generator) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the trainings of one hold-out; the mean over the queries of each is its recorded mAP."""
    queries, people = rows[0, 3:].astype(int)
    identities = rng.choice(round(people / HELD_OUT), people, replace=False)
    counts = np.bincount(np.arange(queries) % people, minlength=people)
    for mean in rows[:, 2]:
        residuals = rng.normal(0, RESIDUAL / 2**0.5, people)
        yield identities, counts, mean + residuals - np.average(residuals, weights=counts)
