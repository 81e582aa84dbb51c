"""Backbones from timm that turn images into pooled features."""

import difflib
from typing import Any, cast

import timm
import torch
from torch import nn

from reid_tune.config.model import Model
from reid_tune.config.unused_fields import is_transformer, is_vit
from reid_tune.errors import InputError
from reid_tune.modeling.pooling import GeM
from reid_tune.modeling.resnet import adapt_resnet
from reid_tune.modeling.swin import adapt_swin, is_swin, swin_options
from reid_tune.modeling.vit import set_patch_stride

__all__ = ["build_backbone"]

# What timm's models raise on a size or a pooling that they cannot take.
_MISFITS = (AssertionError, ValueError, RuntimeError)


def build_backbone(model: Model) -> tuple[nn.Module, nn.Module, int]:
    """Build the backbone that a spec names, with untrained weights, and its pooling.

    `resnet_50` is the reference's network: it has no ReLU after its first batch norm. Swins have the reference's
    windows. Swins and other timm models with an input size are built for the spec's size.

    Returns:
        A module from images [batch, C, H, W] to pooled features [batch, dimension] (`avg`: timm's own pooling) or to
        the last map (`gem`), the module that pools this map, and the dimension.

    Raises:
        InputError: timm does not have the name, or the model cannot take the size, the pooling or a rate.
    """
    backbone = _create(model)
    adapt_resnet(backbone, model)
    if is_swin(model):
        adapt_swin(backbone, model)
    if is_vit(model.backbone):
        set_patch_stride(backbone, model)
    features = _features(backbone, model)
    if model.pooling == "avg":
        return backbone, nn.Identity(), features[0]
    if len(features) != 3:
        raise InputError(f"model.pooling = 'gem': {model.backbone} ends in tokens, not in a map; write avg.")
    channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
    return backbone, GeM(channels_last), features[-1 if channels_last else 0]


def _create(model: Model) -> nn.Module:
    name = "resnet50" if model.backbone == "resnet_50" else model.backbone
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, ["resnet_50", *timm.list_models()], cutoff=0)
        raise InputError(f"model.backbone = {model.backbone!r}: not a timm model; near ones are {', '.join(near)}.")
    options = {"num_classes": 0, "in_chans": model.input_channels, **_rates(model)}
    if model.pooling == "gem":
        options["global_pool"] = ""
    sized = {"img_size": (model.input_height, model.input_width)} | (swin_options(model) if is_swin(model) else {})
    try:
        try:
            return cast(nn.Module, timm.create_model(name, **options, **sized))
        except TypeError:  # most convolutional networks take any size, and none to be built for
            return cast(nn.Module, timm.create_model(name, **options))
    except TypeError as error:
        raise InputError(f"model.backbone = {model.backbone!r} does not take a value of the spec: {error}.") from None
    except _MISFITS as error:
        raise _misfit(model, error) from None


def _rates(model: Model) -> dict[str, Any]:
    """Stochastic depth and dropouts by timm's names; not every transformer has each of the dropouts."""
    if not is_transformer(model.backbone):
        return {}
    rates = {"drop_path_rate": model.drop_path}
    if model.drop_out:
        rates["proj_drop_rate"] = model.drop_out
        if is_vit(model.backbone):
            rates["pos_drop_rate"] = model.drop_out
    if model.att_drop_rate:
        rates["attn_drop_rate"] = model.att_drop_rate
    return rates


@torch.no_grad()
def _features(backbone: nn.Module, model: Model) -> torch.Size:
    """The shape of one image's features; some families take any size until they see an image."""
    try:
        features = backbone.eval()(torch.zeros(1, model.input_channels, model.input_height, model.input_width))
    except _MISFITS as error:
        raise _misfit(model, error) from None
    backbone.train()
    return cast(torch.Size, features.shape[1:])


def _misfit(model: Model, error: Exception) -> InputError:
    pooling = " with pooling gem" if model.pooling == "gem" else ""
    return InputError(
        f"model.backbone = {model.backbone!r} cannot take images of {model.input_height} x {model.input_width} "
        f"(height x width){pooling}: {error}"
    )
