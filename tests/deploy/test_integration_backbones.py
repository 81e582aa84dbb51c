"""Backbones of the documentation and of two more families, in full size; `benchmarks/export.py` has all of them."""

from pathlib import Path

import pytest

from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.preprocessing import DEFAULT, ExportOptions

from .conftest import make_network

SERVED = ExportOptions("uint8_nhwc", "fp16", l2_normalized=True)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("backbone", "height", "options"),
    [
        ("resnet_50", 384, SERVED),
        ("swin_tiny_patch4_window7_224", 384, DEFAULT),
        ("swin_tiny_patch4_window7_224", 256, SERVED),
        ("convnext_tiny", 256, DEFAULT),
        ("vit_small_patch16_224", 384, DEFAULT),
    ],
)
def test_a_backbone_in_full_size_is_exported_right(
    backbone: str, height: int, options: ExportOptions, tmp_path: Path
) -> None:
    network, experiment = make_network(backbone, height, 128)
    path = tmp_path / "model.onnx"
    parity = export_onnx(network, experiment, path, options=options)
    assert parity.equal and parity.same_neighbours == 1 and parity.batches == (1, 3, 16)
    weights = sum(values.numel() for values in network.backbone.parameters())
    assert path.stat().st_size < (2.2 if options is SERVED else 4.2) * weights + 1e7
