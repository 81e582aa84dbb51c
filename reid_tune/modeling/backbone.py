"""Backbones from timm, which turn images into pooled features."""

import difflib
from typing import Any, cast

import timm
import torch
from timm.layers import DropPath
from torch import nn

from reid_tune.config.model import Model, drop_path, has_parts, is_swin, is_transformer, is_vit, last_stride
from reid_tune.errors import InputError
from reid_tune.modeling import ibn, osnet  # noqa: F401  (their import makes their networks known to timm)
from reid_tune.modeling.last_stride import set_last_stride
from reid_tune.modeling.non_local import add_non_local
from reid_tune.modeling.parts import build_part_pooling
from reid_tune.modeling.pooling import GeM
from reid_tune.modeling.swin import adapt_swin, swin_options
from reid_tune.modeling.vit import set_patch_stride

__all__ = ["build_backbone"]

# Errors of timm's models on a size or a pooling that they do not support.
_UNSUPPORTED = (AssertionError, ValueError, RuntimeError)


def build_backbone(model: Model) -> tuple[nn.Module, nn.Module, int]:
    """Build the backbone that a spec names, with untrained weights, and its pooling.

    `resnet_50` is the reference's network: it has no ReLU after its first batch norm. Swins have the reference's
    windows. Swins and other timm models with an input size are built for the spec's size.

    Args:
        model: Section `model` of the spec.

    Returns:
        A module from images [batch, C, H, W] to pooled features [batch, dimension] (`avg`: timm's own pooling) or to
        the last map or all tokens (`gem`, or several parts), the module that pools them, and the dimension of a
        part's feature.

    Raises:
        InputError: timm has no model of that name, or the model does not support the size, the pooling, the parts or a
            rate.
    """
    backbone = _create(model)
    _require_stochastic_depth(backbone, model)
    if model.backbone == "resnet_50":
        backbone.act1 = nn.Identity()
    if last_stride(model) == 1:
        set_last_stride(backbone, model)
    add_non_local(backbone, model)
    if is_swin(model.backbone):
        adapt_swin(backbone, model)
    if is_vit(model.backbone):
        set_patch_stride(backbone, model)
    features = _features(backbone, model)
    if has_parts(model):
        return backbone, *build_part_pooling(backbone, model, features)
    if model.pooling == "avg":
        return backbone, nn.Identity(), features[0]
    if len(features) != 3:
        raise InputError(
            f"model.pooling = 'gem': {model.backbone} ends in tokens, not in a map; set model.pooling to avg."
        )
    channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
    return backbone, GeM(channels_last), features[-1 if channels_last else 0]


def _create(model: Model) -> nn.Module:
    name = "resnet50" if model.backbone == "resnet_50" else model.backbone
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name, ["resnet_50", *timm.list_models()], cutoff=0)
        # The reference writes false into every spec, and ignores it for a ResNet.
        advice = "; remove model.reduce_feat_dim, too: the embedding of a ResNet of the reference has feat_dim values"
        has_advice = name.startswith("resnet_") and model.reduce_feat_dim is False
        raise InputError(
            f"model.backbone = {model.backbone!r} is not a timm model; similar names are {', '.join(similar)}"
            f"{advice if has_advice else ''}."
        )
    options = {"num_classes": 0, "in_chans": model.input_channels, **_rates(model)}
    if model.pooling == "gem" or has_parts(model):
        options["global_pool"] = ""
    sized: dict[str, Any] = {"img_size": (model.input_height, model.input_width)}
    if is_swin(model.backbone):
        sized |= swin_options(model)
    try:
        try:
            return cast(nn.Module, timm.create_model(name, **options, **sized))
        except TypeError:  # most convolutional networks support any size and have no such option
            return cast(nn.Module, timm.create_model(name, **options))
    except TypeError as error:
        raise InputError(
            f"model.backbone = {model.backbone!r} does not support a value of the spec: {error}."
        ) from None
    except _UNSUPPORTED as error:
        raise _unsupported(model, error) from None


def _require_stochastic_depth(backbone: nn.Module, model: Model) -> None:
    """Check that a rate of stochastic depth has reached a block; some families of timm accept it and ignore it.

    Raises:
        InputError: It has not.
    """
    is_ignored = not any(isinstance(layer, DropPath) and layer.drop_prob for layer in backbone.modules())
    if is_ignored and drop_path(model) and not is_transformer(model.backbone):
        raise InputError(
            f"model.drop_path = {model.drop_path}: {model.backbone} has no stochastic depth; set model.drop_path to 0."
        )


def _rates(model: Model) -> dict[str, Any]:
    """Return stochastic depth and dropouts by timm's names; not every transformer has each of the dropouts."""
    rates: dict[str, Any] = {}
    if is_transformer(model.backbone) or drop_path(model):
        rates["drop_path_rate"] = drop_path(model)
    if not is_transformer(model.backbone):
        return rates
    if model.drop_out:
        rates["proj_drop_rate"] = model.drop_out
        if is_vit(model.backbone):
            rates["pos_drop_rate"] = model.drop_out
    if model.att_drop_rate:
        rates["attn_drop_rate"] = model.att_drop_rate
    return rates


@torch.no_grad()
def _features(backbone: nn.Module, model: Model) -> torch.Size:
    """Return the shape of one image's features; some families accept any size until they see an image."""
    try:
        features = backbone.eval()(torch.zeros(1, model.input_channels, model.input_height, model.input_width))
    except _UNSUPPORTED as error:
        raise _unsupported(model, error) from None
    backbone.train()
    return cast(torch.Size, features.shape[1:])


def _unsupported(model: Model, error: Exception) -> InputError:
    pooling = " with pooling gem" if model.pooling == "gem" else " in parts" if has_parts(model) else ""
    return InputError(
        f"model.backbone = {model.backbone!r} does not support images of {model.input_height} x {model.input_width} "
        f"(height x width){pooling}: {error}"
    )
