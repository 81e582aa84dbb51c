"""Backbones from timm that turn images into pooled features."""

import difflib
from typing import cast

import timm
import torch
from timm.models.resnet import ResNet
from torch import nn

from reid_tune.errors import InputError
from reid_tune.spec.model import Model

__all__ = ["make_backbone"]

# What timm's models raise on a size that they cannot take.
_MISFITS = (AssertionError, ValueError, RuntimeError)


def make_backbone(model: Model) -> tuple[nn.Module, int]:
    """Build the backbone that a spec names, with untrained weights.

    `resnet_50` is the reference's network: it has no ReLU after its first batch norm. Swins and other timm models
    with an input size are built for the spec's size.

    Returns:
        A module from images [batch, 3, H, W] to pooled features [batch, dimension], and the dimension.

    Raises:
        InputError: timm does not have the name, or the model cannot take the size.
    """
    reference_resnet = model.backbone == "resnet_50"
    name = "resnet50" if reference_resnet else model.backbone
    backbone = _create(name, model)
    if isinstance(backbone, ResNet):
        _set_last_stride(backbone, model.last_stride)
        if reference_resnet:
            backbone.act1 = nn.Identity()
    return backbone, _dimension(backbone, model)


def _create(name: str, model: Model) -> nn.Module:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, ["resnet_50", *timm.list_models()], cutoff=0)
        raise InputError(f"model.backbone = {model.backbone!r}: not a timm model; near ones are {', '.join(near)}.")
    size = {"img_size": (model.input_height, model.input_width)}
    try:
        return cast(nn.Module, timm.create_model(name, num_classes=0, **size))
    except TypeError:
        return cast(nn.Module, timm.create_model(name, num_classes=0))
    except _MISFITS as error:
        raise _misfit(model, error) from None


@torch.no_grad()
def _dimension(backbone: nn.Module, model: Model) -> int:
    """The dimension of the features of an image of the spec's size; some families take any size until they see one."""
    try:
        features = backbone.eval()(torch.zeros(1, 3, model.input_height, model.input_width))
    except _MISFITS as error:
        raise _misfit(model, error) from None
    backbone.train()
    return int(features.shape[1])


def _misfit(model: Model, error: Exception) -> InputError:
    return InputError(
        f"model.backbone = {model.backbone!r} cannot take images of {model.input_height} x {model.input_width} "
        f"(height x width): {error}"
    )


def _set_last_stride(backbone: ResNet, stride: int) -> None:
    first = backbone.layer4[0]
    for convolution in (first.conv1, first.conv2):
        if convolution.stride == (2, 2):
            convolution.stride = (stride, stride)
    for layer in first.downsample:
        if isinstance(layer, nn.Conv2d):
            layer.stride = (stride, stride)
        elif isinstance(layer, nn.AvgPool2d):
            layer.stride = layer.kernel_size = stride
