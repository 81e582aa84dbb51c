"""Fields without effect for a backbone, loss or schedule."""

from dataclasses import dataclass

from reid_tune.config.defaults import backbone_defaults
from reid_tune.config.experiment import Experiment
from reid_tune.config.model import is_swin, is_transformer, is_vit, pretrained_choice
from reid_tune.config.unused_augmentation_fields import AUGMENTATION_RULES
from reid_tune.config.unused_optim_fields import OPTIM_RULES, Rule

__all__ = [
    "PAIR_LOSSES",
    "UnusedField",
    "has_identity_loss",
    "has_pair_loss",
    "has_triplet_loss",
    "has_triplet_margin",
    "keys_with_conditions",
    "unused_fields",
]


@dataclass(frozen=True)
class UnusedField:
    """A field without effect.

    Attributes:
        key: Dotted key.
        reason: Why it has no effect.
        is_strict: Whether a value is refused, as the reference has no such field: it can only be a mistake.
        is_refused: Whether it is strict and has another value than the default.
    """

    key: str
    reason: str
    is_strict: bool
    is_refused: bool


def unused_fields(experiment: Experiment) -> list[UnusedField]:
    """Return all fields of `model`, `dataset`, `re_ranking` and `train` without effect in an experiment."""
    defaults = backbone_defaults(experiment.model.backbone)
    return [
        UnusedField(key, reason, key in _STRICT, key in _STRICT and experiment.value(key) != defaults[key])
        for reason, active, keys in _RULES
        if not active(experiment)
        for key in keys
    ]


def keys_with_conditions() -> frozenset[str]:
    """Return the keys that some experiments have no use for."""
    return frozenset(key for _, _, keys in _RULES for key in keys)


def has_identity_loss(experiment: Experiment) -> bool:
    """Whether the identity loss is one of the losses."""
    return "softmax" in experiment.dataset.sampler


def has_triplet_loss(experiment: Experiment) -> bool:
    """Whether the triplet loss is one of the losses."""
    return "triplet" in experiment.dataset.sampler and "triplet" in experiment.model.metric_loss_type


def has_triplet_margin(experiment: Experiment) -> bool:
    """Whether there is a triplet loss with a margin that is a number; otherwise its margin is soft."""
    return has_triplet_loss(experiment) and experiment.train.triplet_mining == "hard" and not experiment.model.no_margin


def has_pair_loss(experiment: Experiment) -> bool:
    """Whether a loss on all pairs of the batch is one of the losses."""
    return "triplet" in experiment.dataset.sampler and experiment.model.metric_loss_type in PAIR_LOSSES


PAIR_LOSSES = ("circle", "multi_similarity", "supervised_contrastive", "lifted")

# Fields that the reference does not have. Its own fields do nothing there either, so a value of them is only named,
# except for the identity losses, which it does not survive.
_STRICT = {
    "model.id_loss_type",
    "model.sub_centers",
    "train.optim.pair_margin",
    "train.optim.pair_scale",
    *(key for _, _, keys in AUGMENTATION_RULES for key in keys),
    "dataset.validation_fraction",
    "dataset.validation_seed",
    "dataset.validation_unseen_by",
    "model.label_smoothing",
    "model.non_local",
    "train.identity_weight",
    "train.triplet_weight",
    "train.triplet_mining",
    "train.triplet_distance",
    "train.optim.decay_norms",
    "train.optim.nesterov",
    "train.optim.plateau_patience",
    "train.optim.flat_fraction",
    "train.optim.min_lr_factor",
}


def _has_pretrained_weights(experiment: Experiment) -> bool:
    return bool(experiment.model.pretrained_model_path)


_RULES: tuple[Rule, ...] = (
    ("the backbone is not a ResNet", lambda e: "resnet" in e.model.backbone, ("model.non_local",)),
    ("the backbone is a transformer", lambda e: not is_transformer(e.model.backbone), ("model.last_stride",)),
    ("the backbone is not a ViT", lambda e: is_vit(e.model.backbone), ("model.stride_size",)),
    (
        "there is no ViT with pretrain_choice self",
        lambda e: is_vit(e.model.backbone) and e.model.pretrain_choice == "self" and _has_pretrained_weights(e),
        ("model.pretrain_hw_ratio",),
    ),
    (
        "the backbone is neither a Swin nor a ViT",
        lambda e: is_transformer(e.model.backbone),
        ("model.drop_out", "model.att_drop_rate"),
    ),
    ("a resnet_50 has no stochastic depth", lambda e: e.model.backbone != "resnet_50", ("model.drop_path",)),
    ("the backbone is not a Swin", lambda e: is_swin(e.model.backbone), ("model.semantic_weight",)),
    (
        "pretrained_model_path is not set",
        lambda e: _has_pretrained_weights(e) or not e.model.pretrain_choice,
        ("model.pretrain_choice",),
    ),
    ("pretrain_choice is empty", lambda e: bool(pretrained_choice(e.model)), ("model.pretrained_model_path",)),
    ("a resnet_50 projects to feat_dim", lambda e: e.model.backbone != "resnet_50", ("model.reduce_feat_dim",)),
    (
        "reduce_feat_dim is false",
        lambda e: e.model.reduce_feat_dim is not False or e.model.backbone == "resnet_50",
        ("model.feat_dim",),
    ),
    ("there is no neck", lambda e: e.model.neck == "bnneck", ("model.neck_feat",)),
    (
        "sampler is triplet",
        has_identity_loss,
        (
            *("model.id_loss_type", "model.label_smooth", "model.dropout_rate"),
            *("train.optim.large_fc_lr", "train.identity_weight"),
        ),
    ),
    (
        "there is no identity loss with a margin",
        lambda e: has_identity_loss(e) and e.model.id_loss_type != "softmax",
        ("model.sub_centers", "train.optim.cosine_margin", "train.optim.cosine_scale"),
    ),
    (
        "the metric loss is none of circle, multi_similarity and lifted",
        lambda e: has_pair_loss(e) and e.model.metric_loss_type != "supervised_contrastive",
        ("train.optim.pair_margin",),
    ),
    (
        "the metric loss is none of circle, multi_similarity and supervised_contrastive",
        lambda e: has_pair_loss(e) and e.model.metric_loss_type != "lifted",
        ("train.optim.pair_scale",),
    ),
    (
        "label_smooth is false or there is no identity loss",
        lambda e: e.model.label_smooth and has_identity_loss(e),
        ("model.label_smoothing",),
    ),
    (
        "there is no triplet loss",
        has_triplet_loss,
        ("model.no_margin", "train.triplet_mining", "train.triplet_distance"),
    ),
    (
        "there is neither a triplet loss nor a loss on pairs",
        lambda e: has_triplet_loss(e) or has_pair_loss(e),
        ("train.triplet_weight",),
    ),
    (
        "triplet_mining is weighted",
        lambda e: e.train.triplet_mining == "hard" or not has_triplet_loss(e),
        ("model.no_margin",),
    ),
    (
        "the triplet loss has a soft margin or is not used",
        has_triplet_margin,
        ("train.optim.triplet_loss_margin",),
    ),
    (
        "with_center_loss is false",
        lambda e: e.model.with_center_loss,
        ("train.optim.center_loss_weight", "train.optim.center_lr"),
    ),
    *AUGMENTATION_RULES,
    (
        "validation is not holdout",
        lambda e: e.dataset.validation == "holdout",
        ("dataset.validation_fraction", "dataset.validation_seed", "dataset.validation_unseen_by"),
    ),
    (
        "re_ranking is false",
        lambda e: e.re_ranking.re_ranking,
        ("re_ranking.k1", "re_ranking.k2", "re_ranking.lambda_value"),
    ),
    *OPTIM_RULES,
)
