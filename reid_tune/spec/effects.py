"""Fields that change nothing with this backbone, loss or schedule."""

from collections.abc import Callable
from dataclasses import dataclass

from reid_tune.spec.defaults import documented
from reid_tune.spec.experiment import Experiment

__all__ = ["Idle", "idle_fields"]


@dataclass(frozen=True)
class Idle:
    """A field without effect; `deliberate` where its value is neither a default nor a documented example."""

    key: str
    reason: str
    deliberate: bool


def idle_fields(experiment: Experiment) -> list[Idle]:
    """All fields of `model`, `dataset`, `re_ranking` and `train` that change nothing in this experiment."""
    return [
        Idle(key, reason, experiment.value(key) not in documented(key))
        for reason, active, keys in _RULES
        if not active(experiment)
        for key in keys
    ]


def _resnet(experiment: Experiment) -> bool:
    return "resnet" in experiment.model.backbone


def _vit(experiment: Experiment) -> bool:
    return "vit" in experiment.model.backbone or "deit" in experiment.model.backbone


def _identity(experiment: Experiment) -> bool:
    return "softmax" in experiment.dataset.sampler


def _triplet(experiment: Experiment) -> bool:
    return "triplet" in experiment.dataset.sampler


_RULES: tuple[tuple[str, Callable[[Experiment], bool], tuple[str, ...]], ...] = (
    ("the backbone is not a ResNet", _resnet, ("model.last_stride",)),
    ("the backbone is not a ViT", _vit, ("model.stride_size", "model.pretrain_hw_ratio")),
    ("pretrained_model_path is not set", lambda e: bool(e.model.pretrained_model_path), ("model.pretrain_choice",)),
    ("reduce_feat_dim is false", lambda e: e.model.reduce_feat_dim is not False, ("model.feat_dim",)),
    ("there is no neck", lambda e: e.model.neck == "bnneck", ("model.neck_feat",)),
    ("sampler is triplet", _identity, ("model.label_smooth", "train.optim.large_fc_lr")),
    ("sampler is softmax", _triplet, ("model.no_margin",)),
    (
        "no_margin is true or sampler is softmax",
        lambda e: _triplet(e) and not e.model.no_margin,
        ("train.optim.triplet_loss_margin",),
    ),
    (
        "with_center_loss is false",
        lambda e: e.model.with_center_loss,
        ("train.optim.center_loss_weight", "train.optim.center_lr"),
    ),
    (
        "validation is not holdout",
        lambda e: e.dataset.validation == "holdout",
        ("dataset.validation_fraction", "dataset.validation_seed"),
    ),
    (
        "re_ranking is false",
        lambda e: e.re_ranking.re_ranking,
        ("re_ranking.k1", "re_ranking.k2", "re_ranking.lambda_value"),
    ),
    ("the optimizer is not SGD", lambda e: e.train.optim.name == "SGD", ("train.optim.momentum",)),
    ("no plateau schedule is chosen", lambda e: False, ("train.optim.lr_monitor",)),
    (
        "warmup_method is cosine",
        lambda e: e.train.optim.warmup_method == "linear",
        ("train.optim.warmup_iters", "train.optim.lr_steps", "train.optim.gamma"),
    ),
    (
        "warmup_method is linear",
        lambda e: e.train.optim.warmup_method == "cosine",
        ("train.optim.warmup_epochs",),
    ),
)
