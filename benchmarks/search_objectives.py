"""Objectives of the searches that are compared."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import spec
from search_samples import SAMPLES_FILE, SAMPLES_SPACE, Forest
from search_synthetic import CONDITIONS_SPACE, CROSSING_SPACE, OPTIMUM, conditions_curve, crossing_curve
from search_table import BACKBONE, BASE, GRID_FILE, GRID_SPACE, Grid, grid_configurations, train_rows

from reid_tune.search_space.parse import parse_spaces
from reid_tune.search_space.space import plain_values

__all__ = ["OBJECTIVES", "Objective", "train_objective"]


@dataclass(frozen=True)
class Objective:
    """Score of a configuration by epoch.

    Attributes:
        space: Entries of the search space.
        curve: Function that returns the scores by epoch from the values of all keys.
        best: Best score at the last epoch that is known.
        describe: Function that returns a line about the objective.
    """

    space: Mapping[str, Any]
    curve: Callable[[Mapping[str, Any]], list[float]]
    best: float
    describe: Callable[[], str]


def _grid() -> Objective:
    grid = Grid(json.loads(GRID_FILE.read_text()))
    return Objective(GRID_SPACE, grid.curve, grid.best, lambda: f"the best of the table: {100 * grid.best:.1f}")


def _samples() -> Objective:
    space, _ = parse_spaces(SAMPLES_SPACE, [], plain_values(spec(BACKBONE, BASE)), "samples")
    rows = json.loads(SAMPLES_FILE.read_text())
    forest = Forest(space, rows)

    def describe() -> str:
        error, correlation = forest.errors()
        return (
            f"the best of the forest at its {len(rows)} samples: {100 * forest.best:.1f}; its mean absolute error at "
            f"the last epoch, cross-validated: {100 * error:.1f}; rank correlation: {correlation:.2f}"
        )

    return Objective(SAMPLES_SPACE, forest.curve, forest.best, describe)


def _synthetic(space: Mapping[str, Any], curve: Callable[[Mapping[str, Any]], list[float]]) -> Callable[[], Objective]:
    return lambda: Objective(space, curve, OPTIMUM, lambda: f"the optimum: {100 * OPTIMUM:.1f}")


# Functions that make an objective, by name.
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "grid": _grid,
    "samples": _samples,
    "conditions": _synthetic(CONDITIONS_SPACE, conditions_curve),
    "crossing": _synthetic(CROSSING_SPACE, crossing_curve),
}


def train_objective(name: str, lines: Path) -> None:
    """Train the configurations of `grid` or `samples` again, and write its file; for `lines` see `train_rows`."""
    if name == "grid":
        train_rows(list(grid_configurations()), lines, GRID_FILE)
    elif name == "samples":
        train_rows([row["parameters"] for row in json.loads(SAMPLES_FILE.read_text())], lines, SAMPLES_FILE)
    else:
        raise SystemExit(f"The objective {name} is a formula: there is nothing to train.")
