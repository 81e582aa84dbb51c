"""A tiny drawn data set and an untrained network for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint
from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.demo import draw_demo_data
from reid_tune.modeling.network import build_seeded_network

Spec = Callable[..., Experiment]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    draw_demo_data(folder, identities=6, images=4)
    return folder


@pytest.fixture
def spec(data: Path, tmp_path: Path) -> Spec:
    def make(**values: Any) -> Experiment:
        overrides = {key.replace("__", "."): value for key, value in values.items()}
        tree = {
            "results_dir": str(tmp_path / "results"),
            "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 24},
            "dataset": {
                "train_dataset_dir": str(data / "bounding_box_train"),
                "test_dataset_dir": str(data / "bounding_box_test"),
                "query_dataset_dir": str(data / "query"),
                "batch_size": 8,
            },
            "train": {"num_epochs": 1, "optim": {"warmup_iters": 0}},
        }
        return build_experiment(tree, overrides, "test")

    return make


@pytest.fixture
def checkpoint(spec: Spec, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "trained" / "model.pth", spec())


def write_checkpoint(path: Path, experiment: Experiment, seed: int = 0) -> Path:
    """A checkpoint of weights that tell images apart: an untrained batch norm of timm ends a branch in 0."""
    network = build_seeded_network(experiment.model, 6, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    spec = experiment.model_dump(mode="json", exclude={"encryption_key"})
    save_checkpoint(path, Checkpoint(spec, 1, list(range(6)), [{"epoch": 1}], network.state_dict(), {}))
    return path
