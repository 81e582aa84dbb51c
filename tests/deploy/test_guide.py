"""The guide's code runs, and its numbers are right."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_tune.config.defaults import backbone_defaults
from reid_tune.data.images import load_image
from reid_tune.demo import draw_demo_data
from reid_tune.deploy.onnx_model import OnnxModel

from .conftest import SMALL

GUIDE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()


def test_onnxruntime_in_ten_lines(exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    _, path, _ = exported(SMALL)
    draw_demo_data(tmp_path / "data", identities=4, images=4)
    shutil.copy(path, tmp_path / "reid.onnx")
    crop = shutil.copy(min((tmp_path / "data" / "query").iterdir()), tmp_path / "crop.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    model = OnnxModel(path)
    wanted = model.embed(np.stack([load_image(crop, model.preprocessing.image_spec)]))
    np.testing.assert_allclose(names["embedding"], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("backbone", ["resnet_50", "swin_tiny_patch4_window7_224"])
def test_one_factor_normalises_all_channels_of_the_default_specs(backbone: str) -> None:
    table = backbone_defaults(backbone)
    mean, std = (np.array(table[f"dataset.{key}"]) for key in ("pixel_mean", "pixel_std"))
    assert np.ptp(std) == 0
    row = next(line for line in GUIDE.splitlines() if line.lower().startswith(f"| {backbone[:4]}"))
    factor, offsets = row.strip("| ").split(" | ")[1:]
    assert float(factor) == pytest.approx(1 / (255 * std[0]), rel=1e-5)
    assert [float(value) for value in offsets.split(";")] == pytest.approx(list(255 * mean))
