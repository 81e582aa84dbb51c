"""Sampled objective: mAP after every epoch of random trainings over ten keys, and a forest that interpolates it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from search_table import EPOCHS
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import GroupKFold, cross_val_predict

from reid_tune.search.encoding import SpaceEncoding
from reid_tune.search_space.space import SearchSpace

__all__ = ["SAMPLES_FILE", "SAMPLES_SPACE", "Forest"]

SAMPLES_FILE = Path(__file__).with_suffix(".json")
_NAME, _SOFT = "train.optim.name", "model.no_margin"
SAMPLES_SPACE: dict[str, Any] = {
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
_MOST_CHOICES = 3


class Forest:
    """Extremely randomized trees over (configuration, epoch), fitted to the samples.

    Args:
        space: Search space of the samples.
        rows: Samples.

    Attributes:
        best: Best prediction at the last epoch for the samples' configurations.
    """

    def __init__(self, space: SearchSpace, rows: Sequence[Mapping[str, Any]]) -> None:
        self._encoding = SpaceEncoding(space)
        self._inputs = np.concatenate([self._points(row["parameters"]) for row in rows])
        self._values = np.concatenate([row["mAP"] + [_DIVERGED] * (EPOCHS - len(row["mAP"])) for row in rows])
        self._trees = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=1).fit(self._inputs, self._values)
        self.best = float(_last(self._trees.predict(self._inputs)).max())

    def curve(self, values: Mapping[str, Any]) -> list[float]:
        """Return the mAP by epoch."""
        return list(self._trees.predict(self._points(values)).tolist())

    def errors(self) -> tuple[float, float]:
        """Cross-validate in ten folds of configurations.

        Returns:
            The mean absolute error at the last epoch, and the rank correlation with the measured mAP there.
        """
        groups = np.arange(len(self._values)) // EPOCHS
        left_out = cross_val_predict(self._trees, self._inputs, self._values, groups=groups, cv=GroupKFold(10))
        predicted, measured = _last(left_out), _last(self._values)
        return float(np.abs(predicted - measured).mean()), float(spearmanr(predicted, measured).statistic)

    def _points(self, configuration: Mapping[str, Any]) -> np.ndarray:
        """Return one row for each epoch: numbers, one-hot choices, epoch."""
        point = self._encoding.points([configuration], [0.0])
        choices = (point.categories[0][:, None] == np.arange(_MOST_CHOICES)).ravel()
        columns = np.concatenate([point.numbers[0], choices])
        return np.array([[*columns, epoch] for epoch in range(1, EPOCHS + 1)])


def _last(values: np.ndarray) -> np.ndarray:
    """Return the values at the last epoch."""
    return values[EPOCHS - 1 :: EPOCHS]
