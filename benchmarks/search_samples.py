"""Sampled objective: mAP after every epoch of random trainings over ten keys, and a forest that interpolates it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import temporary_workspace
from rich.progress import track
from search_table import EPOCHS, train_row
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import GroupKFold, cross_val_predict

from reid_tune.demo import draw_demo_data
from reid_tune.files import write_atomic
from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search_space.space import SearchSpace

__all__ = ["FILE", "SPACE", "Forest", "make_samples"]

FILE = Path(__file__).with_suffix(".json")
_NAME, _SOFT = "train.optim.name", "model.no_margin"
SPACE: dict[str, Any] = {
    _NAME: {"choice": ["Adam", "AdamW", "SGD"]},
    "train.optim.base_lr": [
        {"loguniform": [1e-4, 5e-2], "when": {_NAME: ["Adam", "AdamW"]}},
        {"loguniform": [3e-3, 1.0], "when": {_NAME: "SGD"}},
    ],
    "train.optim.weight_decay": {"loguniform": [1e-6, 1e-1]},
    "train.optim.warmup_iters": {"int": [0, 3]},
    "train.optim.lr_steps": {"list": [{"int": [4, 6]}, {"int": [7, 8]}]},
    _SOFT: {"choice": [True, False]},
    "train.optim.triplet_loss_margin": {"uniform": [0.1, 0.6], "when": {_SOFT: False}},
    "dataset.re_prob": {"uniform": [0.0, 0.7]},
    "dataset.num_instances": {"choice": [2, 4, 8]},
    "model.label_smooth": {"choice": [True, False]},
}
_DIVERGED = 0.05  # about the mAP of an untrained network, for the epochs that a diverged training lacks


def make_samples(lines: Path, configurations: Sequence[Mapping[str, Any]]) -> None:
    """Train configurations, 400 times 9 epochs in about 22 minutes on one core, and write the samples.

    Args:
        lines: File to which every training appends a line; trainings that it contains are not repeated.
        configurations: Random configurations of the space.
    """
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    with temporary_workspace() as folder, lines.open("a") as file:
        draw_demo_data(folder / "data", identities=100, images=6)
        for parameters in track(configurations[len(rows) :]):
            row = train_row(dict(parameters), folder)
            file.write(json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
    write_atomic(FILE, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


class Forest:
    """Extremely randomized trees over (configuration, epoch), fitted to the samples.

    Args:
        space: Search space of the samples.
        rows: Samples.

    Attributes:
        error: Mean absolute error at the last epoch of configurations that were left out, by ten-fold
            cross-validation.
        best: Best mAP at the last epoch of all samples.
    """

    def __init__(self, space: SearchSpace, rows: Sequence[Mapping[str, Any]]) -> None:
        self._encoding = SpaceEncoding(space)
        inputs = np.concatenate([self._inputs(row["parameters"]) for row in rows])
        curves = [row["mAP"] + [_DIVERGED] * (EPOCHS - len(row["mAP"])) for row in rows]
        values, groups = np.concatenate(curves), np.repeat(np.arange(len(rows)), EPOCHS)
        self._trees = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=1)
        left_out = cross_val_predict(self._trees, inputs, values, groups=groups, cv=GroupKFold(10))
        self.error = float(np.abs(left_out - values)[EPOCHS - 1 :: EPOCHS].mean())
        self.best = max(curve[-1] for curve in curves)
        self._trees.fit(inputs, values)
        self._cache: dict[str, list[float]] = {}

    def curve(self, configuration: Mapping[str, Any]) -> list[float]:
        """Return the mAP by epoch."""
        key = json.dumps(dict(configuration), sort_keys=True)
        if key not in self._cache:
            self._cache[key] = self._trees.predict(self._inputs(configuration)).tolist()
        return self._cache[key]

    def _inputs(self, configuration: Mapping[str, Any]) -> np.ndarray:
        """Return one row for each epoch: numbers, one-hot categories, epoch."""
        point = self._encoding.points([configuration], [0.0])
        choices = (point.categories[0][:, None] == np.arange(4)).ravel()
        fixed = np.concatenate([point.numbers[0], choices])
        return np.array([[*fixed, epoch] for epoch in range(1, EPOCHS + 1)])
