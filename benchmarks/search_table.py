"""Tabulated objective: mAP on held-out identities of drawn pedestrians after every epoch of a grid of trainings."""

import json
import tempfile
from collections.abc import Iterator
from itertools import product
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

__all__ = ["AXES", "BACKBONE", "BASE", "EPOCHS", "FILE", "NAME", "RATE", "RATES", "make_table"]

FILE = Path(__file__).with_suffix(".json")
BACKBONE, EPOCHS = "test_resnet", 9
NAME, RATE = "train.optim.name", "train.optim.base_lr"
# A factor of 4,000 each, from rates that hardly learn to rates that diverge.
_ADAM = tuple(3e-5 * 4**step for step in range(7))
_SGD = tuple(1e-3 * 4**step for step in range(7))
RATES = {"Adam": _ADAM, "SGD": _SGD, "AdamW": _ADAM}
AXES: dict[str, tuple[float, ...]] = {
    "train.optim.triplet_loss_margin": (0.1, 0.35, 0.6),
    "dataset.re_prob": (0.0, 0.5),
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


def make_table(lines: Path) -> None:
    """Train the grid, 126 times 9 epochs in about 7 minutes on one core, and write the table.

    Args:
        lines: File to which every training appends a line; trainings that it contains are not repeated.
    """
    torch.set_num_threads(1)
    grid = list(_grid())
    rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    done = [row["parameters"] for row in rows]
    remaining = [parameters for parameters in grid if parameters not in done]
    with temporary_workspace() as folder, lines.open("a") as file:
        draw_demo_data(folder / "data", identities=100, images=6)
        for parameters in track(remaining):
            row = _train(parameters, folder)
            file.write(json.dumps(row) + "\n")
            file.flush()
            rows.append(row)
    rows.sort(key=lambda row: grid.index(row["parameters"]))
    write_atomic(FILE, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def _grid() -> Iterator[dict[str, Any]]:
    for name, rates in RATES.items():
        for rate, *others in product(rates, *AXES.values()):
            yield {NAME: name, RATE: rate, **dict(zip(AXES, others, strict=True))}


def _train(parameters: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train, and return a row: the parameters, the mAP by epoch, and the reason if the training failed."""
    with tempfile.TemporaryDirectory(dir=folder) as results:
        reporter = _Collector()
        try:
            train(_experiment(parameters, folder / "data"), reporter, Path(results))
        except RunFailedError as error:
            return {"parameters": parameters, "mAP": reporter.values, "failed": str(error)}
    return {"parameters": parameters, "mAP": reporter.values}


def _experiment(parameters: dict[str, Any], data: Path) -> Experiment:
    return spec(BACKBONE, BASE | parameters | {"dataset.train_dataset_dir": str(data / "bounding_box_train")})


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
