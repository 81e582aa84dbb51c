"""One small member of each of these families: a training step and an export with parity, or the reason why not.

`docs/backbones.md` shows the rows that this test finds.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.errors import InputError, RunFailedError
from reid_tune.modeling.network import ReIDNet

from .conftest import make_network

PAGE = Path(__file__).resolve().parents[2] / "docs" / "backbones.md"
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "IBN-a": ("resnet18_ibn_a", {}),
    "IBN-b": ("resnet18_ibn_b", {}),
    "Non-local": ("resnet18", {"model.non_local": True}),
    "OSNet": ("osnet_x0_25", {}),
    "OSNet-AIN": ("osnet_ain_x0_25", {}),
    "OSNet-IBN": ("osnet_ibn_x1_0", {}),
    "ResNeSt": ("resnest14d", {}),
    "ConvNeXt": ("convnext_atto", {}),
    "MobileNetV4": ("mobilenetv4_conv_small_035", {}),
    "TinyViT": ("tiny_vit_5m_224", {}),
    "EVA-02": ("eva02_tiny_patch14_224", {}),
    "DINOv2": ("vit_small_patch14_dinov2", {"model.stride_size": (14, 14)}),
    "DINOv3": ("vit_small_patch16_dinov3", {}),
    "CLIP ViT": ("vit_xsmall_patch16_clip_224", {}),
    "CAFormer": ("caformer_s18", {}),
    "HRNet": ("hrnet_w18_small", {}),
    "RegNet": ("regnety_002", {}),
}


def trains(network: ReIDNet) -> bool:
    """Whether a step along the gradient lowers the loss."""
    images, labels = torch.randn(8, 3, 64, 32), torch.arange(8) % 4

    def loss() -> torch.Tensor:
        return functional.cross_entropy(network.logits(network.features(images)), labels)

    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    before = loss()
    gradients = torch.autograd.grad(before, parameters, allow_unused=True)
    norm = sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None) ** 0.5
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.01 / norm * gradient
    return bool(loss() < before)


def row(family: str, folder: Path) -> str:
    """The row of the page on a family."""
    backbone, values = FAMILIES[family]
    written = ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in values.items())
    try:
        network, experiment = make_network(backbone, 64, 32, **values, **{"model.drop_path": 0.0})
    except InputError as error:
        return f"| {family} | `{backbone}` | {written} | – | {error} | |"
    learned = "yes" if trains(network) else "no"
    try:
        export_onnx(network, experiment, folder / "model.onnx")
        exported = "yes"
    except RunFailedError as error:
        exported = str(error)
    millions = sum(weights.numel() for weights in network.backbone.parameters()) / 1e6
    return f"| {family} | `{backbone}` | {written} | {millions:.1f} | {learned} | {exported} |"


@pytest.mark.integration
@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_says_what_a_family_can(family: str, tmp_path: Path) -> None:
    assert row(family, tmp_path) in PAGE.read_text().splitlines()
