"""Every form of an exported file."""

import copy
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.preprocessing import ExportOptions
from reid_tune.errors import RunFailedError

from ..helpers.small_networks import SMALL_VIT
from .conftest import GREY, SMALL, make_crops

SWIN = "swin_tiny_patch4_window7_224"
OPTIONS = [ExportOptions(*values) for values in product(("float_nchw", "uint8_nhwc"), ("fp32", "fp16"), (False, True))]
HALF = ExportOptions(precision="fp16")


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        *((SMALL, options) for options in OPTIONS[1:]),
        *(pytest.param(backbone, OPTIONS[-1], marks=pytest.mark.integration) for backbone in ("resnet_50", SWIN)),
    ],
)
def test_every_form_gives_the_embeddings_of_pytorch(
    translate: Callable[..., Any], tmp_path: Path, backbone: str, options: ExportOptions
) -> None:
    (network, experiment), plain = translate(backbone)
    path, dataset = tmp_path / "m.onnx", experiment.dataset
    parity = export_onnx(network, experiment, path, options=options)
    assert parity.equal and parity.same_neighbours == 1 and [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    graph = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert path.stat().st_size < (0.52 if options.precision == "fp16" else 1.01) * plain.ByteSize()

    model = OnnxModel(path)
    assert model.options == options
    image_spec = model.preprocessing.image_spec
    crops = make_crops(3, image_spec.height, image_spec.width)
    images = (crops / 255 - np.array(dataset.pixel_mean)) / np.array(dataset.pixel_std)
    with torch.no_grad():
        wanted = network.eval()(torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()
    if options.l2_normalized:
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    tolerance = 4e-3 if options.precision == "fp16" else 5e-4
    for batch_size in (1, 2, 64):
        found = model.embed(crops, batch_size)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def test_a_grey_network_takes_grey_pixels(translate: Callable[..., Any], tmp_path: Path) -> None:
    made, _ = translate(SMALL, **GREY)
    assert export_onnx(*made, tmp_path / "m.onnx", options=ExportOptions("uint8_nhwc", "fp16", True)).equal
    shape = onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape
    assert [size.dim_value or size.dim_param for size in shape.dim] == ["batch", 64, 32, 1]


@pytest.mark.parametrize(("backbone", "pooling"), [(SMALL, "gem"), (SMALL_VIT, "avg")])
@pytest.mark.parametrize("options", [ExportOptions(), HALF])
def test_a_network_of_parts(
    translate: Callable[..., Any], tmp_path: Path, backbone: str, pooling: str, options: ExportOptions
) -> None:
    made, _ = translate(backbone, **{"model.parts": [1, 2], "model.pooling": pooling, "model.feat_dim": 16})
    assert export_onnx(*made, tmp_path / "m.onnx", options=options).equal
    assert OnnxModel(tmp_path / "m.onnx").dimension == 48
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("name", ["backbone.layer1.0.conv2.weight", "backbone.layer4.0.conv1.weight"])
def test_a_weight_that_is_one_percent_off_is_refused_in_half_precision(
    translated: Any, tmp_path: Path, name: str
) -> None:
    made, model = translated
    weight = next(entry for entry in model.graph.initializer if entry.name == name)
    weight.raw_data = (onnx.numpy_helper.to_array(weight) * np.float32(1.01)).tobytes()
    with pytest.raises(RunFailedError, match=r"m\.onnx is not written, .* different embeddings"):
        export_onnx(*made, tmp_path / "m.onnx", options=HALF)
    assert not list(tmp_path.iterdir())


def test_a_network_whose_values_leave_the_range_has_no_form_in_half_precision(translated: Any, tmp_path: Path) -> None:
    (network, experiment), _ = translated
    large = copy.deepcopy(network)
    last: Any = large.backbone.layer4[-1].bn2
    with torch.no_grad():
        last.weight *= 1e6
        last.bias *= 1e6
        large.projection.weight *= 1e-4
    with pytest.raises(
        RunFailedError, match=r"^export.precision = fp16 does not fit this network: [^\n]*65,504; [^\n]*$"
    ):
        export_onnx(large, experiment, tmp_path / "m.onnx", options=HALF)
    assert not list(tmp_path.iterdir())
