"""A genuine server for the client's commands, its models and the images."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_tune.data.images import load_image
from reid_tune.demo import draw_demo_data
from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.preprocessing import ExportOptions
from reid_tune.deploy.triton.config import ServingOptions
from reid_tune.deploy.triton.repository import write_repository

from ...helpers.triton_server import Triton, triton_server


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "data"
    draw_demo_data(folder, identities=8, images=4)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, exported: Callable[[str], Any]) -> dict[str, OnnxModel]:
    """A network whose client normalises, and the same that normalises by itself."""
    made, path, _ = exported("resnet18")
    pixels = tmp_path_factory.mktemp("pixels") / "pixels.onnx"
    export_onnx(*made, pixels, options=ExportOptions(layout="uint8_nhwc"))
    return {"floats": OnnxModel(path), "pixels": OnnxModel(pixels)}


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, models: dict[str, OnnxModel]) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "models"
    for name, model in models.items():
        write_repository(model.path, folder, name=name, serving=ServingOptions())
    write_repository(models["floats"].path, folder, name="small", serving=ServingOptions(max_batch_size=4))
    write_repository(models["floats"].path, folder, name="wrong", serving=ServingOptions())
    config = folder / "wrong" / "config.pbtxt"
    key = 'key: "dimension"\n  value {\n    string_value: '
    config.write_text(config.read_text().replace(f'{key}"256"', f'{key}"128"'))
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Triton]:
    with triton_server(repository) as found:
        yield found


def expected(model: OnnxModel, paths: list[Path]) -> np.ndarray:
    """The embeddings of image files by a model's own file."""
    return model.embed(np.stack([load_image(path, model.preprocessing.image_spec) for path in paths]))
