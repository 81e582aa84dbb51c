"""Tabulated objective: mAP on held-out identities of drawn pedestrians after every epoch of a grid of trainings."""

import itertools
import json
import math
import tempfile
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import spec, temporary_workspace
from rich.progress import track

from reid_tune.config.experiment import Experiment
from reid_tune.demo import draw_demo_data
from reid_tune.errors import RunFailedError
from reid_tune.files import write_atomic
from reid_tune.training.loop import train

__all__ = ["BACKBONE", "BASE", "EPOCHS", "GRID_FILE", "GRID_SPACE", "Grid", "grid_configurations", "train_rows"]

GRID_FILE = Path(__file__).with_suffix(".json")
BACKBONE, EPOCHS = "test_resnet", 9
_NAME, _RATE = "train.optim.name", "train.optim.base_lr"
_MARGIN, _ERASING = "train.optim.triplet_loss_margin", "dataset.re_prob"
# A factor of 4,000 each, from rates that hardly learn to rates that diverge.
_ADAM = tuple(3e-5 * 4**step for step in range(7))
_SGD = tuple(1e-3 * 4**step for step in range(7))
_RATES = {"Adam": _ADAM, "SGD": _SGD, "AdamW": _ADAM}
_AXES: dict[str, tuple[float, ...]] = {_MARGIN: (0.1, 0.35, 0.6), _ERASING: (0.0, 0.5)}
GRID_SPACE: dict[str, Any] = {
    _NAME: {"choice": list(_RATES)},
    _RATE: [
        {"loguniform": [_ADAM[0], _ADAM[-1]], "when": {_NAME: ["Adam", "AdamW"]}},
        {"loguniform": [_SGD[0], _SGD[-1]], "when": {_NAME: "SGD"}},
    ],
    **{key: {"uniform": [values[0], values[-1]]} for key, values in _AXES.items()},
}
BASE: dict[str, Any] = {
    "model.input_height": 64,
    "model.input_width": 32,
    "dataset.validation": "holdout",
    "dataset.validation_fraction": 0.5,
    "dataset.batch_size": 32,
    "dataset.padding": 2,
    "train.num_epochs": EPOCHS,
    "train.checkpoint_interval": EPOCHS,
    "train.optim.lr_steps": (6, 8),
    "train.optim.warmup_iters": 1,
}


class Grid:
    """Table of trainings as a function of a configuration.

    Args:
        rows: Rows of the table.

    Attributes:
        best: Best mAP at the last epoch.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._curves = {tuple(row["parameters"].values()): row["mAP"] for row in rows}
        self.best = max(curve[-1] for curve in self._curves.values() if len(curve) == EPOCHS)

    def curve(self, values: Mapping[str, Any]) -> list[float]:
        """Return the mAP by epoch; shorter than a whole training if it diverges."""
        name = values[_NAME]
        sides = [_between(_RATES[name], values[_RATE], logarithmic=True)]
        sides += [_between(tabulated, values[key]) for key, tabulated in _AXES.items()]
        corners = [
            (math.prod(weight for _, weight in corner), self._curves[name, *(value for value, _ in corner)])
            for corner in itertools.product(*sides)
        ]
        length = min(len(curve) for _, curve in corners)
        return [sum(weight * curve[epoch] for weight, curve in corners) for epoch in range(length)]


def _between(tabulated: Sequence[float], value: float, *, logarithmic: bool = False) -> list[tuple[float, float]]:
    """Return the tabulated values on both sides of a value with their weights, or a tabulated value alone."""
    above = min(bisect(tabulated, value), len(tabulated) - 1)
    sides = tabulated[above - 1], tabulated[above]
    low, high, at = (math.log(x) if logarithmic else x for x in (*sides, value))
    share = (at - low) / (high - low)
    return [(side, weight) for side, weight in zip(sides, (1 - share, share), strict=True) if weight > 0]


def grid_configurations() -> Iterator[dict[str, Any]]:
    """Yield the configurations of the grid."""
    for name, rates in _RATES.items():
        for rate, *others in itertools.product(rates, *_AXES.values()):
            yield {_NAME: name, _RATE: rate, **dict(zip(_AXES, others, strict=True))}


def train_rows(configurations: Sequence[Mapping[str, Any]], lines: Path, file: Path) -> None:
    """Train configurations, 9 epochs in about 3 seconds each on one quiet core, and write the rows.

    Args:
        configurations: Configurations in the order of the rows.
        lines: File to which every training appends a line; trainings that it contains are not repeated.
        file: JSON file of the rows.
    """
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    done = [row["parameters"] for row in rows]
    remaining = [parameters for parameters in configurations if parameters not in done]
    with temporary_workspace() as folder, lines.open("a") as log:
        draw_demo_data(folder / "data", identities=100, images=6)
        for parameters in track(remaining):
            row = _train(parameters, folder)
            log.write(json.dumps(row) + "\n")
            log.flush()
            rows.append(row)
    rows.sort(key=lambda row: configurations.index(row["parameters"]))
    write_atomic(file, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def _train(parameters: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train, and return a row: the parameters, the mAP by epoch, and the reason if the training failed."""
    with tempfile.TemporaryDirectory(dir=folder) as results:
        reporter = _Collector()
        try:
            train(_experiment(parameters, folder / "data"), reporter, Path(results))
        except RunFailedError as error:
            return {"parameters": parameters, "mAP": reporter.values, "failed": str(error)}
    return {"parameters": parameters, "mAP": reporter.values}


def _experiment(parameters: Mapping[str, Any], data: Path) -> Experiment:
    changes = BASE | dict(parameters) | {"dataset.train_dataset_dir": str(data / "bounding_box_train")}
    return spec(BACKBONE, changes)


class _Collector:
    def __init__(self) -> None:
        self.values: list[float] = []

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        pass

    def info(self, text: str) -> None:
        pass

    def report_step(self, step: int, loss: float) -> None:
        pass

    def report_epoch(self, metrics: Any) -> None:
        self.values.append(round(metrics["mAP"], 4))
