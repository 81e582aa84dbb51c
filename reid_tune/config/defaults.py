"""Defaults by backbone: those of the ResNet page, overridden by those of the Swin page."""

from functools import cache
from typing import Any

from reid_tune.config.experiment import Experiment, flatten

__all__ = ["SWIN_DEFAULTS", "backbone_defaults"]

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


def backbone_defaults(backbone: str) -> dict[str, Any]:
    """Return the default values of a backbone by dotted key."""
    flat = dict(_schema_defaults())
    if backbone.startswith("swin"):
        flat |= SWIN_DEFAULTS
    return flat | {"model.backbone": backbone}


@cache
def _schema_defaults() -> dict[str, Any]:
    """Defaults of the schema; made once, as a preflight asks for them thousands of times."""
    return flatten(Experiment().model_dump())
