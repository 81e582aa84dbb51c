"""Fields that are not built yet, fields without effect, and warnings."""

from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.spec.checks import notes, require_built
from reid_tune.spec.effects import idle_fields
from reid_tune.spec.experiment import Experiment
from reid_tune.spec.load import build_experiment

SWIN = "swin_tiny_patch4_window7_224"


def build(**values: Any) -> Experiment:
    return build_experiment({}, {key.replace("__", "."): value for key, value in values.items()}, "test")


NOT_BUILT = {
    "model.pretrained_model_path": "/weights.pth",
    "model.input_channels": 1,
    "model.with_center_loss": True,
    "train.num_gpus": 2,
    "train.optim.lr_monitor": "train_loss",
    "train.optim.name": "RMSprop",
    "evaluate.num_gpus": 2,
    "evaluate.output_sampled_matches_plot": "matches.png",
    "inference.num_gpus": 3,
    "model.stride_size": [8, 8],
    "model.pretrain_hw_ratio": 1.5,
}
# What else must be set for a value to be accepted by the schema's own rules.
ALONG = {
    "model.with_center_loss": {"model.metric_loss_type": "triplet_center"},
    "model.stride_size": {"model.backbone": "vit_tiny_patch16_224"},
    "model.pretrain_hw_ratio": {"model.backbone": "vit_tiny_patch16_224"},
}


# No schedule watches lr_monitor yet, so that any other value is refused as one without effect.
@pytest.mark.parametrize("key", NOT_BUILT.keys() - {"train.optim.lr_monitor"})
def test_a_field_that_is_not_built_is_refused_by_name(key: str) -> None:
    experiment = build_experiment({}, {key: NOT_BUILT[key]} | ALONG.get(key, {}), "test")
    with pytest.raises(InputError, match="not supported in this version") as caught:
        require_built(experiment)
    assert f"{key} = {NOT_BUILT[key]!r}" in str(caught.value)
    assert str(caught.value).count(" = ") == 1


def test_all_fields_that_are_not_built_are_named_at_once() -> None:
    tree: dict[str, Any] = Experiment().model_dump() | {"encryption_key": "open-sesame"}
    for key, value in NOT_BUILT.items():
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[leaf] = value
    with pytest.raises(InputError) as caught:
        require_built(Experiment.model_validate(tree))
    assert all(f"{key} = {value!r}" in str(caught.value) for key, value in NOT_BUILT.items())
    assert "encryption_key" in str(caught.value) and "open-sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model__backbone": SWIN},
        {"model__backbone": "vit_tiny_patch16_224"},
        {"train__optim__name": "AdamW", "train__clip_grad_norm": 1.0, "train__precision": "bf16"},
        {"encryption_key": "", "model__pretrained_model_path": ""},
    ],
)
def test_what_is_built_passes(values: dict[str, Any]) -> None:
    require_built(build(**values))


# (a spec, a key, its default or documented value, a value of the user's own); the key has no effect in the spec.
IDLE: list[tuple[dict[str, Any], str, Any, Any]] = [
    ({"model.backbone": SWIN}, "model.last_stride", 1, 2),
    ({}, "model.stride_size", [16, 16], [12, 12]),
    ({}, "model.pretrain_hw_ratio", 2, 1),
    ({}, "model.pretrain_choice", "self", ""),
    ({"model.reduce_feat_dim": False}, "model.feat_dim", 1024, 512),
    ({"model.neck": ""}, "model.neck_feat", "after", "before"),
    ({"dataset.sampler": "triplet"}, "train.optim.large_fc_lr", False, True),
    ({"model.no_margin": True}, "train.optim.triplet_loss_margin", 0.3, 0.5),
    ({"dataset.sampler": "softmax"}, "train.optim.triplet_loss_margin", 0.3, 0.5),
    ({}, "train.optim.center_loss_weight", 0.0005, 0.1),
    ({}, "train.optim.center_lr", 0.5, 0.1),
    ({}, "dataset.validation_fraction", 0.2, 0.1),
    ({"dataset.validation": "none"}, "dataset.validation_seed", 0, 1),
    ({"re_ranking.re_ranking": False}, "re_ranking.k1", 20, 10),
    ({"re_ranking.re_ranking": False}, "re_ranking.k2", 6, 3),
    ({"re_ranking.re_ranking": False}, "re_ranking.lambda_value", 0.3, 0.5),
    ({}, "train.optim.momentum", 0.9, 0.8),
    ({}, "train.optim.lr_monitor", "val_loss", "train_loss"),
    ({"model.backbone": SWIN}, "train.optim.warmup_iters", 10, 5),
    ({"train.optim.warmup_method": "cosine"}, "train.optim.lr_steps", [40, 70], [3]),
    ({"train.optim.warmup_method": "cosine"}, "train.optim.gamma", 0.1, 0.5),
    ({}, "train.optim.warmup_epochs", 20, 3),
]


@pytest.mark.parametrize(("spec", "key", "documented", "own"), IDLE)
def test_a_value_without_effect_is_an_error_where_nobody_documented_it(
    spec: dict[str, Any], key: str, documented: Any, own: Any
) -> None:
    experiment = build_experiment({}, spec | {key: documented}, "test")
    assert [idle.deliberate for idle in idle_fields(experiment) if idle.key == key] == [False]
    assert key.rsplit(".", 1)[-1] in notes(experiment)[-1]
    with pytest.raises(InputError, match="has no effect, because .*: remove it") as caught:
        build_experiment({}, spec | {key: own}, "test")
    assert f"{key} = " in str(caught.value)


ACTIVE: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "model.last_stride", 2),
    ({"model.backbone": "vit_tiny_patch16_224"}, "model.stride_size", [12, 12]),
    ({"model.pretrained_model_path": "x"}, "model.pretrain_choice", ""),
    ({}, "model.feat_dim", 512),
    ({"model.reduce_feat_dim": True}, "model.feat_dim", 512),
    ({}, "model.neck_feat", "before"),
    ({}, "train.optim.large_fc_lr", True),
    ({}, "train.optim.triplet_loss_margin", 0.5),
    ({"dataset.validation": "holdout"}, "dataset.validation_fraction", 0.1),
    ({}, "re_ranking.k1", 10),
    ({"train.optim.name": "SGD"}, "train.optim.momentum", 0.8),
    ({}, "train.optim.lr_steps", [3]),
    ({"model.backbone": SWIN}, "train.optim.warmup_epochs", 3),
]


@pytest.mark.parametrize(("spec", "key", "value"), ACTIVE)
def test_a_value_with_effect_is_accepted(spec: dict[str, Any], key: str, value: Any) -> None:
    experiment = build_experiment({}, spec | {key: value}, "test")
    assert key not in {idle.key for idle in idle_fields(experiment)}


def test_a_warm_up_as_long_as_the_run_is_a_warning() -> None:
    assert any("warmup_iters = 10 is not below train.num_epochs = 10" in line for line in notes(build()))
    assert not any(line.startswith("warning") for line in notes(build(train__num_epochs=11)))
    short = build(model__backbone=SWIN, train__num_epochs=5)
    assert any(line.startswith("warning: train.optim.warmup_epochs = 20") for line in notes(short))


def test_one_line_lists_what_has_no_effect() -> None:
    *_, line = notes(build(model__backbone=SWIN))
    assert line.startswith("no effect here: ") and "\n" not in line
    assert (
        "last_stride (the backbone is not a ResNet)" in line and "warmup_iters, lr_steps, gamma (warmup_method" in line
    )
    assert "warmup_epochs" not in line


def test_the_line_about_effects_can_be_kept_to_what_the_user_wrote() -> None:
    experiment = build_experiment({"train": {"optim": {"momentum": 0.9}}}, {}, "test")
    assert notes(experiment, {"train.optim.momentum"})[-1] == "no effect here: momentum (the optimizer is not SGD)"
    assert not any(line.startswith("no effect") for line in notes(experiment, set()))
