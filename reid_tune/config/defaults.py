"""Defaults by backbone: those of the ResNet page, overridden by those of the Swin page."""

from functools import cache
from typing import Any

from reid_tune.config.experiment import Experiment, flatten

__all__ = ["SWIN_DEFAULTS", "backbone_defaults", "documented_values"]

SWIN_DEFAULTS: dict[str, Any] = {
    "model.backbone": "swin_tiny_patch4_window7_224",
    "model.pretrain_choice": "self",
    "model.input_height": 384,
    "model.feat_dim": 1024,
    "model.no_margin": True,
    "model.label_smooth": False,
    "dataset.num_workers": 8,
    "dataset.pixel_mean": (0.5, 0.5, 0.5),
    "dataset.pixel_std": (0.5, 0.5, 0.5),
    "train.optim.name": "SGD",
    "train.optim.bias_lr_factor": 2.0,
    "train.optim.weight_decay": 0.0001,
    "train.optim.weight_decay_bias": 0.0001,
    "train.optim.warmup_method": "cosine",
    "train.optim.base_lr": 0.0008,
    "train.num_epochs": 120,
    "train.checkpoint_interval": 10,
}

# Values of the documentation's examples that differ from both tables of defaults.
_EXAMPLES = {"train.checkpoint_interval": (5,), "train.validation_interval": (5,)}


def backbone_defaults(backbone: str) -> dict[str, Any]:
    """Return the default values of a backbone by dotted key."""
    flat = flatten(Experiment().model_dump())
    if backbone.startswith("swin"):
        flat |= SWIN_DEFAULTS
    return flat | {"model.backbone": backbone}


def documented_values(key: str) -> tuple[Any, ...]:
    """Return the values of a key in the documentation: both defaults and the examples."""
    resnet, swin = _documented_defaults()
    return (resnet[key], swin[key], *_EXAMPLES.get(key, ()))


@cache
def _documented_defaults() -> tuple[dict[str, Any], dict[str, Any]]:
    """Defaults of the ResNet and the Swin page; made once, as a preflight asks for them thousands of times."""
    return backbone_defaults("resnet_50"), backbone_defaults(str(SWIN_DEFAULTS["model.backbone"]))
