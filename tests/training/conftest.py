from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment

Build = Callable[..., Experiment]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def draw(folder: Path, identities: range, images: int) -> Path:
    """Draw images of 32 x 16 pixels, with a pattern of colours for each identity, of three cameras."""
    folder.mkdir(parents=True)
    for identity in identities:
        rng = np.random.default_rng(identity)
        pattern = np.kron(rng.integers(0, 256, (4, 2, 3)), np.ones((8, 8, 1)))
        for number in range(images):
            pixels = np.clip(pattern + rng.normal(0, 60, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{identity:04d}_c{number % 3 + 1}s1_{number:06d}_00.png")
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `train` (12 identities x 6 images), `gallery` (4 x 3) and `query` (4 x 2, of cameras 1 and 2)."""
    root = tmp_path_factory.mktemp("data")
    draw(root / "train", range(1, 13), 6)
    draw(root / "gallery", range(101, 105), 3)
    draw(root / "query", range(101, 105), 2)
    return root


@pytest.fixture(scope="session")
def build(data: Path) -> Build:
    """Return a function that builds a spec of a small network on that data, with overrides by dotted key."""

    def make(**values: Any) -> Experiment:
        tree = {
            "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 32},
            "dataset": {"train_dataset_dir": str(data / "train"), "batch_size": 16, "padding": 2, "validation": "none"},
            "train": {"num_epochs": 3, "checkpoint_interval": 2, "validation_interval": 2},
        }
        return build_experiment(tree, {key.replace("__", "."): value for key, value in values.items()}, "test")

    return make


def build_on_folders(build: Build, *folders: Path, **values: object) -> Experiment:
    """Return a spec of the small network with several training folders."""
    return build(dataset__train_dataset_dir=[str(folder) for folder in folders], **values)


class Recorder:
    """Reporter that records all calls, and interrupts the run after an epoch."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.started: tuple[int, int, int] | None = None
        self.messages: list[str] = []
        self.steps: list[tuple[int, float]] = []
        self.reports: list[dict[str, Any]] = []
        self.stop_after = stop_after

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        self.started = (steps_per_epoch, first_epoch, num_epochs)

    def info(self, text: str) -> None:
        self.messages.append(text)

    def report_step(self, step: int, loss: float) -> None:
        self.steps.append((step, loss))

    def report_epoch(self, metrics: Mapping[str, Any]) -> None:
        self.reports.append(dict(metrics))
        if metrics["epoch"] == self.stop_after:
            raise InterruptedError
