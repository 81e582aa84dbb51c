import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.deploy import onnx_export
from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.parity import Parity
from reid_tune.modeling.network import ReIDNet, build_network

Made = tuple[ReIDNet, Experiment]

SMALL = "test_resnet"  # exported in 2 s; the full-size backbones are for the integration tests
GREY = {
    "model.input_channels": 1,
    "dataset.pixel_mean": (0.3, 0.9, 0.9),
    "dataset.pixel_std": (0.2, 0.9, 0.9),
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def make_network(backbone: str, height: int, width: int, **values: Any) -> Made:
    """A network in training mode whose batch norms have weights and statistics of their own.

    Untrained residual branches of timm end in a weight of 0 or a scale of 1e-6: the exporter would drop them, or they
    change nothing, and parity proves little.
    """
    overrides = {"model.backbone": backbone, "model.input_height": height, "model.input_width": width, **values}
    experiment = build_experiment({}, overrides, "test")
    torch.manual_seed(0)
    network = build_network(experiment.model, classes=5)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network.train(), experiment


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Made, Path, Parity]]:
    """Network, file and parity by backbone and values of the spec, each exported once."""
    known: dict[str, tuple[Made, Path, Parity]] = {}

    def get(backbone: str, **values: Any) -> tuple[Made, Path, Parity]:
        key = f"{backbone} {values}"
        if key not in known:
            height, width = (64, 64) if "swin" in backbone else (64, 32)
            made = make_network(backbone, height, width, **values)
            if "swin" in backbone:  # two blocks, one of them shifted, in each stage are enough to export
                stages: Any = made[0].backbone.layers
                stages[2].blocks = stages[2].blocks[:2]
            path = tmp_path_factory.mktemp(backbone) / "model.onnx"
            known[key] = made, path, export_onnx(*made, path)
        return known[key]

    return get


@pytest.fixture
def translate(exported: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Skips torch's exporter, which is slow: the graph is that of the file, and a test may change it."""

    def get(backbone: str, **values: Any) -> Any:
        made, path, _ = exported(backbone, **values)
        model = onnx.load(path)
        monkeypatch.setattr(onnx_export, "_translate", lambda *_: copy.deepcopy(model))
        return made, model

    return get


@pytest.fixture
def translated(translate: Callable[..., Any]) -> Any:
    return translate(SMALL)


def make_crops(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
