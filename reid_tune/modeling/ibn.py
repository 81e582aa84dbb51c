"""ResNets with instance normalisation (IBN-Net: Pan et al., ECCV 2018), by the names of the authors' weight files.

To import this module makes `resnet{18,34,50,101}_ibn_{a,b}` known to timm. Their instance norms remove the style of an
image, such as the colours of a camera.
"""

from typing import Any

import timm
import torch
from timm.models import register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["IBN_RESNETS", "SplitNorm"]

IBN_RESNETS = tuple(f"resnet{depth}_ibn_{variant}" for depth in (18, 34, 50, 101) for variant in "ab")


class SplitNorm(nn.Module):
    """Instance norm of the first half of the channels, and batch norm of the second one (IBN-a)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.split = channels // 2
        self.IN = nn.InstanceNorm2d(self.split, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.split)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, C, H, W] to the same shape."""
        return torch.cat([self.IN(x[:, : self.split]), self.BN(x[:, self.split :])], dim=1)


class _NormedOutput(nn.Module):
    """Block whose sum of branch and shortcut passes an instance norm before the last ReLU (IBN-b)."""

    IN: nn.InstanceNorm2d

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.IN(super().forward(x)))


class _NormedBasicBlock(_NormedOutput, BasicBlock):
    pass


class _NormedBottleneck(_NormedOutput, Bottleneck):
    pass


def _add_split_norms(network: ResNet) -> None:
    for stage in (network.layer1, network.layer2, network.layer3):
        for block in stage:
            block.bn1 = SplitNorm(block.bn1.num_features)


def _add_output_norms(network: ResNet) -> None:
    """Norm the stem and the outputs of the first two stages, whose last blocks change their class."""
    network.bn1 = nn.InstanceNorm2d(network.bn1.num_features, affine=True)
    for stage in (network.layer1, network.layer2):
        block = stage[-1]
        if isinstance(block, Bottleneck):
            block.__class__, block.act3, last = _NormedBottleneck, nn.Identity(), block.bn3
        else:
            block.__class__, block.act2, last = _NormedBasicBlock, nn.Identity(), block.bn2
        block.IN = nn.InstanceNorm2d(last.num_features, affine=True)


def _register(name: str) -> None:
    plain, _, variant = name.partition("_ibn_")

    def build(pretrained: bool = False, **options: Any) -> ResNet:
        network = timm.create_model(plain, pretrained=pretrained, **options)
        (_add_split_norms if variant == "a" else _add_output_norms)(network)
        return network

    build.__name__ = name
    globals()[name] = register_model(build)


for _name in IBN_RESNETS:
    _register(_name)
