"""Networks that a weight file fits, for the message about a file that does not fit the network of a spec."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch

from reid_tune.checkpoints.weight_search import NetworkKeys, find_weights, network_keys
from reid_tune.modeling.ibn import IBN_RESNETS
from reid_tune.modeling.osnet import OSNETS

__all__ = ["suggest_networks"]

# Networks of ReID models; all are built in about two seconds, as they have no memory.
_NETWORKS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnet50_clip.openai",
    "swin_tiny_patch4_window7_224",
    "swin_small_patch4_window7_224",
    "swin_base_patch4_window7_224",
    "swin_large_patch4_window7_224",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_base_patch16_clip_224",
    "vit_large_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    *IBN_RESNETS,
    *OSNETS,
)
_MIN_SHARE = 0.5  # of a network's tensors that a file must have
_MAX_SURPLUS = 0.2  # of other tensors, as a file of a larger network of the same family fits as well


@dataclass(frozen=True, order=True)
class _Fit:
    """How well a file fits a network: share of the network's tensors, negative share of other tensors, description."""

    share: float
    surplus: float
    text: str


def suggest_networks(content: Any) -> str:
    """Return the end of a message on a file that does not fit: the networks that it fits, or that are the nearest.

    Args:
        content: Nested dictionaries of the file.
    """
    fits = sorted((_fit(content, name) for name in _NETWORKS), reverse=True)
    fits = [fit for fit in fits if fit.share >= _MIN_SHARE][:2]
    if not fits:
        return "give a file of that network"
    if fits[0].share == 1 and fits[0].surplus > -_MAX_SURPLUS:
        return f"it fits {fits[0].text}: set model.backbone, or give another file"
    nearest = " and ".join(fit.text for fit in fits)
    return f"the nearest network{'s are' if len(fits) > 1 else ' is'} {nearest}: give a file of the spec's network"


def _fit(content: Any, name: str) -> _Fit:
    keys = _keys(name)
    match = find_weights(content, keys)
    total = len(keys.shapes)
    size = sum(tensor.startswith("backbone.") for tensor in match.tensors)
    place = f", {match.location}" if match.location else ""
    return _Fit(match.fitting / total, -abs(1 - size / total), f"{name} ({match.fitting} of {total} tensors{place})")


@cache
def _keys(name: str) -> NetworkKeys:
    with torch.device("meta"):
        return network_keys(timm.create_model(name, num_classes=0))
