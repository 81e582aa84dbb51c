"""Backbones of the documentation and of two more families, in full size."""

from pathlib import Path

import pytest

from reid_tune.deploy.form import Form
from reid_tune.deploy.onnx_export import export_onnx

from .conftest import make_network

BACKBONES = (
    "resnet_50",
    "swin_tiny_patch4_window7_224",
    "swin_small_patch4_window7_224",
    "swin_base_patch4_window7_224",
    "convnext_tiny",
    "vit_small_patch16_224",
)


@pytest.mark.integration
@pytest.mark.parametrize("height", [256, 384])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_in_full_size_is_exported_right(backbone: str, height: int, tmp_path: Path) -> None:
    made = make_network(backbone, height, 128)
    plain, served = tmp_path / "plain.onnx", tmp_path / "served.onnx"
    assert export_onnx(*made, plain).equal
    assert export_onnx(*made, served, form=Form("uint8_nhwc", "fp16", l2_normalized=True)).equal
    assert served.stat().st_size < 0.52 * plain.stat().st_size
