"""Fields that are not built yet, fields without effect, and warnings."""

from typing import Any

import pytest

from reid_tune.config.checks import describe_without_effect, find_warnings
from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment, build_spec
from reid_tune.config.unused_fields import unused_fields
from reid_tune.errors import InputError

SWIN = "swin_tiny_patch4_window7_224"


def build(**values: Any) -> Experiment:
    return build_experiment({}, {key.replace("__", "."): value for key, value in values.items()}, "test")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"train.optim.name": "Adm"}, "train.optim.name = 'Adm' is not an optimizer: choose one of ASGD, "),
        ({"train.optim.name": "LBFGS"}, "train.optim.name = 'LBFGS' is not an optimizer"),
        (
            {"model.with_center_loss": True},
            "model.metric_loss_type = 'triplet' does not match model.with_center_loss = True: set it to center",
        ),
        (
            {"model.metric_loss_type": "center"},
            "model.metric_loss_type = 'center' does not match model.with_center_loss = False: set with_center_loss",
        ),
        (
            {"model.metric_loss_type": "center", "model.with_center_loss": True, "dataset.sampler": "triplet"},
            "model.metric_loss_type = 'center' does not match dataset.sampler = 'triplet': set sampler to",
        ),
        (
            {"model.metric_loss_type": "triplet_center", "model.with_center_loss": True, "dataset.sampler": "softmax"},
            "model.metric_loss_type = 'triplet_center' does not match dataset.sampler = 'softmax': set sampler to",
        ),
        ({"dataset.batch_size": 66}, "dataset.batch_size = 66 is not a multiple of dataset.num_instances = 4"),
        (
            {"dataset.max_images_per_identity": 3},
            "dataset.max_images_per_identity = 3 is below dataset.num_instances = 4",
        ),
        (
            {"dataset.folder_weights": [1, 2, 3], "dataset.train_dataset_dir": ["a", "b"]},
            "dataset.folder_weights has 3 values, but dataset.train_dataset_dir has 2 folders: give one value for each",
        ),
        ({"dataset.erasing.min_area": 0.5}, "dataset.erasing.max_area = 0.4 is below dataset.erasing.min_area = 0.5"),
        (
            {"dataset.random_patch.prob": 0.5, "dataset.random_patch.min_area": 0.6},
            "dataset.random_patch.max_area = 0.5 is below dataset.random_patch.min_area = 0.6",
        ),
        (
            {"dataset.re_prob": 0, "dataset.erasing.count": 2},
            "dataset.erasing.count = 2 has no effect, because re_prob is",
        ),
        ({"dataset.rand_augment.magnitude": 5}, "dataset.rand_augment.magnitude = 5.0 has no effect, because"),
        ({"dataset.affine.degrees": 5}, "dataset.affine.degrees = 5.0 has no effect, because affine.prob is 0"),
        ({"dataset.folder_weights": [1, 0]}, "dataset.folder_weights"),
        ({"dataset.batch_size": 4}, "dataset.batch_size = 4 has one identity with dataset.num_instances = 4 images"),
        ({"model.backbone": SWIN, "model.jpm": True}, "model.jpm = True is not supported: set it to false, as JPM"),
        (
            {"model.id_loss_type": "arcface", "dataset.sampler": "triplet"},
            "model.id_loss_type = 'arcface' has no effect, because sampler is triplet: remove it.",
        ),
        (
            {"model.id_loss_type": "amsoftmax"},
            "model.id_loss_type = 'amsoftmax': should be 'softmax', 'arcface', 'cosface' or 'circle'.",
        ),
        (
            {"model.id_loss_type": "circle", "train.optim.cosine_margin": 0.5},
            "train.optim.cosine_margin = 0.5 contradicts itself: the circle loss wants cosines above 0.5 within an "
            "identity and below 0.5 between identities; set it below 0.5.",
        ),
        (
            {"model.metric_loss_type": "circle", "train.optim.pair_margin": 0.75},
            "train.optim.pair_margin = 0.75 contradicts itself: the circle loss wants cosines above 0.25 within",
        ),
        (
            {"model.metric_loss_type": "lifted", "dataset.sampler": "softmax"},
            "model.metric_loss_type = 'lifted' does not match dataset.sampler = 'softmax': set sampler to softmax_trip",
        ),
        (
            {"model.metric_loss_type": "lifted", "model.with_center_loss": True},
            "model.metric_loss_type = 'lifted' does not match model.with_center_loss = True: set it to center",
        ),
        (
            {"model.metric_loss_type": "multi_similarity", "dataset.num_instances": 1},
            "dataset.num_instances = 1 leaves no pair of an identity to the multi-similarity loss: raise it.",
        ),
        (
            {"model.metric_loss_type": "circle", "dataset.batch_size": 4},
            "dataset.batch_size = 4 has one identity with dataset.num_instances = 4 images, and the circle loss needs",
        ),
        ({"train.num_nodes": 2}, "train.num_nodes = 2 is not supported: set it to 1; for several machines run a"),
        (
            {"train.checkpoint_interval_unit": "step"},
            "train.checkpoint_interval_unit = 'step' is not supported: set it to epoch and checkpoint_interval",
        ),
        ({"dataset.train_dataset_dir": 3}, "dataset.train_dataset_dir = 3: should be a folder or a list of folders."),
        ({"dataset.train_dataset_dir": []}, "dataset.train_dataset_dir = []: should be a folder or a list of folders."),
        ({"model.input_channels": 4}, "model.input_channels = 4: should be 1 or 3."),
        (
            {"train.cuda_graphs": True, "train.compile": "auto"},
            "train.cuda_graphs = True cannot be combined with train.compile = auto: set one to false.",
        ),
        (
            {"train.cuda_graphs": True, "train.accumulate": 2},
            "train.cuda_graphs = True cannot be combined with train.accumulate = 2: set cuda_graphs: false or acc",
        ),
        (
            {"train.triplet_distance": "cosine", "train.optim.triplet_loss_margin": 2.5},
            "train.optim.triplet_loss_margin = 2.5 contradicts train.triplet_distance = 'cosine', whose distances",
        ),
        ({"model.label_smooth": False, "model.label_smoothing": 0.2}, "model.label_smoothing = 0.2 has no effect, "),
        ({"dataset.sampler": "softmax", "train.triplet_weight": 2}, "train.triplet_weight = 2.0 has no effect, "),
        ({"dataset.sampler": "triplet", "train.identity_weight": 2}, "train.identity_weight = 2.0 has no effect, "),
        ({"train.triplet_weight": 0}, "train.triplet_weight = 0: should be greater than 0."),
        (
            {"train.optim.name": "SGD", "train.optim.nesterov": True, "train.optim.momentum": 0},
            "train.optim.nesterov = True contradicts train.optim.momentum = 0: set a momentum",
        ),
        ({"train.optim.nesterov": True}, "train.optim.nesterov = True has no effect, because the optimizer is not SGD"),
        (
            {"train.optim.freeze_epochs": 2, "dataset.sampler": "triplet"},
            "train.optim.freeze_epochs = 2 leaves no classifier to train with dataset.sampler = 'triplet': set sampler",
        ),
        (
            {"train.optim.freeze_epochs": 2, "train.cuda_graphs": True},
            "train.cuda_graphs = True cannot be combined with train.optim.freeze_epochs = 2: set cuda_graphs: false or",
        ),
        ({"train.optim.layer_decay": 1.5}, "train.optim.layer_decay = 1.5: should be less than or equal to 1."),
        ({"train.ema_decay": 1}, "train.ema_decay = 1: should be less than 1."),
        ({"model.parts": [1, 2, 1]}, "model.parts = [1, 2, 1] is empty or has a number twice: list each"),
        ({"model.parts": []}, "model.parts = [] is empty or has a number twice: list each number of stripes once, [1]"),
        ({"model.parts": [0]}, "model.parts.0 = 0: should be greater than or equal to 1."),
        ({"train.accumulate": 0}, "train.accumulate = 0: should be greater than or equal to 1."),
        ({"train.compile": "always"}, "train.compile = 'always': should be true, false or auto."),
        ({"dataset.resident": 3}, "dataset.resident = 3: should be true, false or auto."),
    ],
)
def test_a_broken_rule_is_one_sentence(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        build_experiment({}, values, "test")
    assert str(caught.value).startswith(f"test: {fault}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("batch", "workers", "following"), [(66, 1, 68), (66, 8, 72), (66, 3, 72), (7, 3, 12)])
def test_the_next_batch_size_fits_instances_and_workers(batch: int, workers: int, following: int) -> None:
    with pytest.raises(InputError, match=f"a batch is identities x instances; the next valid size is {following}\\."):
        build_experiment({}, {"dataset.batch_size": batch, "train.num_gpus": workers}, "test")
    assert build_experiment({}, {"dataset.batch_size": following, "train.num_gpus": workers}, "test")
    possible = [size for size in range(batch, 200) if size % 4 == 0 and size % workers == 0]
    assert following == possible[0]


def test_dead_keys_of_the_reference_are_left_out_and_named() -> None:
    tree = {"model": {"jpm": False, "cos_layer": False}, "wandb": {"enable": True, "project": "mine"}}
    experiment = build_experiment(tree, {}, "test")
    assert experiment == Experiment()
    assert build_spec(tree, {}, "test").notes[-1] == (
        "no effect: model.cos_layer (as in the reference); model.jpm (the reference reads it for a Swin alone); "
        "wandb.enable, wandb.project (runs are tracked in MLflow)"
    )
    assert describe_without_effect(experiment, {"model.backbone"}) == []


@pytest.mark.parametrize(
    ("num_gpus", "gpu_ids", "gpus"),
    [
        (1, [0], (0,)),
        (1, [0, 1], (0, 1)),
        (2, [0], (0, 1)),
        (3, [4, 5], (0, 1, 2)),
        (1, [3], (3,)),
        (2, [3, 1], (3, 1)),
    ],
)
def test_gpus_follow_the_field_that_names_more(num_gpus: int, gpu_ids: list[int], gpus: tuple[int, ...]) -> None:
    for task in ("train", "evaluate", "inference"):
        experiment = build_experiment({task: {"num_gpus": num_gpus, "gpu_ids": gpu_ids}}, {}, "test")
        assert getattr(experiment, task).gpus == gpus


def test_gpus_of_the_command_line_make_those_of_the_file_void() -> None:
    tree = {"train": {"num_gpus": 4, "gpu_ids": [4, 5, 6, 7]}, "evaluate": {"num_gpus": 4}}
    experiment = build_experiment(tree, {"train.num_gpus": 2}, "test")
    assert experiment.train.gpus == (0, 1) and experiment.evaluate.gpus == (0, 1, 2, 3)
    assert build_experiment(tree, {"train.gpu_ids": [6]}, "test").train.gpus == (6,)
    assert build_experiment(tree, {}, "test").train.gpus == (4, 5, 6, 7)


# (a spec, a key, its default or documented value, a value of the user's own); the key has no effect in the spec.
IDLE: list[tuple[dict[str, Any], str, Any, Any]] = [
    ({"model.backbone": SWIN}, "model.last_stride", 1, 2),
    ({}, "model.stride_size", [16, 16], [12, 12]),
    ({}, "model.pretrain_hw_ratio", 2, 1),
    ({"model.backbone": "vit_tiny_patch16_224", "model.pretrained_model_path": "x"}, "model.pretrain_hw_ratio", 2, 1),
    ({"model.pretrain_choice": ""}, "model.pretrained_model_path", None, "x"),
    ({}, "model.drop_path", 0.1, 0.2),
    ({}, "model.drop_out", 0, 0.2),
    ({}, "model.att_drop_rate", 0, 0.2),
    ({}, "model.semantic_weight", 1.0, 0.2),
    ({"dataset.sampler": "triplet"}, "model.dropout_rate", 0, 0.2),
    ({"dataset.sampler": "triplet"}, "model.id_loss_type", "softmax", "cosface"),
    ({}, "model.sub_centers", 1, 3),
    ({}, "train.optim.cosine_margin", 0.5, 0.3),
    ({}, "train.optim.cosine_scale", 30, 64),
    ({"model.metric_loss_type": "supervised_contrastive"}, "train.optim.pair_margin", None, 0.2),
    ({"model.metric_loss_type": "lifted"}, "train.optim.pair_scale", None, 20),
    ({"model.metric_loss_type": "circle"}, "train.optim.triplet_loss_margin", 0.3, 0.5),
    ({}, "dataset.color_jitter.hue", 0.05, 0.2),
    ({"train.optim.name": "Rprop"}, "train.optim.weight_decay", 0.0005, 0.1),
    ({"train.optim.decay_norms": False}, "train.optim.weight_decay_bias", 0.0005, 0.1),
    ({"train.optim.plateau_patience": 3}, "train.optim.lr_steps", [40, 70], [3]),
    ({"train.optim.warmup_method": "cosine"}, "train.optim.plateau_patience", None, 3),
    ({"model.reduce_feat_dim": False, "model.backbone": SWIN}, "model.feat_dim", 1024, 512),
    ({"model.neck": ""}, "model.neck_feat", "after", "before"),
    ({"dataset.sampler": "triplet"}, "train.optim.large_fc_lr", False, True),
    ({"model.no_margin": True}, "train.optim.triplet_loss_margin", 0.3, 0.5),
    ({"train.triplet_mining": "weighted"}, "train.optim.triplet_loss_margin", 0.3, 0.5),
    ({"train.triplet_mining": "weighted"}, "model.no_margin", False, True),
    ({"dataset.sampler": "softmax"}, "train.optim.triplet_loss_margin", 0.3, 0.5),
    ({}, "train.optim.center_loss_weight", 0.0005, 0.1),
    ({}, "train.optim.center_lr", 0.5, 0.1),
    ({"model.label_smooth": False}, "model.label_smoothing", 0.1, 0.2),
    ({"dataset.sampler": "softmax"}, "train.triplet_mining", "hard", "weighted"),
    ({}, "dataset.validation_fraction", 0.2, 0.1),
    ({"dataset.validation": "none"}, "dataset.validation_seed", 0, 1),
    ({"dataset.validation": "none"}, "dataset.validation_unseen_by", (), ("a.pth",)),
    ({"re_ranking.re_ranking": False}, "re_ranking.k1", 20, 10),
    ({"re_ranking.re_ranking": False}, "re_ranking.k2", 6, 3),
    ({"re_ranking.re_ranking": False}, "re_ranking.lambda_value", 0.3, 0.5),
    ({}, "train.optim.momentum", 0.9, 0.8),
    ({}, "train.optim.lr_monitor", "val_loss", "train_loss"),
    ({"model.backbone": SWIN}, "train.optim.warmup_iters", 10, 5),
    ({"train.optim.warmup_method": "cosine"}, "train.optim.lr_steps", [40, 70], [3]),
    ({"train.optim.warmup_method": "cosine"}, "train.optim.gamma", 0.1, 0.5),
    ({}, "train.optim.warmup_epochs", 20, 3),
    ({"train.optim.warmup_steps": 3}, "train.optim.warmup_iters", 10, 5),
    ({}, "train.optim.min_lr_factor", 0.002, 0.1),
    ({"train.optim.warmup_method": "one_cycle"}, "train.optim.flat_fraction", 0.5, 0.1),
]


# Fields that only reid-tune has: a value without effect can only be a mistake.
STRICT = {
    "model.id_loss_type",
    "model.sub_centers",
    "train.optim.pair_margin",
    "train.optim.pair_scale",
    "dataset.color_jitter.hue",
    "dataset.validation_fraction",
    "dataset.validation_seed",
    "dataset.validation_unseen_by",
    "model.label_smoothing",
    "train.identity_weight",
    "train.triplet_weight",
    "train.triplet_mining",
    "train.optim.plateau_patience",
    "train.optim.flat_fraction",
    "train.optim.min_lr_factor",
}


@pytest.mark.parametrize(("spec", "key", "documented", "value"), IDLE)
def test_a_value_without_effect_is_named_and_not_refused(
    spec: dict[str, Any], key: str, documented: Any, value: Any
) -> None:
    for accepted in (documented,) if key in STRICT else (documented, value):
        loaded = build_spec({}, spec | {key: accepted}, "test")
        assert {field.is_refused for field in unused_fields(loaded.experiment) if field.key == key} == {False}
        if accepted is not None:
            line = loaded.notes[-1]
            assert line.startswith("no effect: ") and key.rsplit(".", 1)[-1] in line and "\n" not in line


@pytest.mark.parametrize(("spec", "key", "documented", "value"), [row for row in IDLE if row[1] in STRICT])
def test_a_value_without_effect_of_a_field_that_the_reference_lacks_is_refused(
    spec: dict[str, Any], key: str, documented: Any, value: Any
) -> None:
    with pytest.raises(InputError, match=f"{key} = .*has no effect, because .*: remove it"):
        build_experiment({}, spec | {key: value}, "test")
    assert build_spec({}, spec | {key: value}, "test", "evaluate").experiment.value(key) == value


# (a spec, a key without effect in it, a value outside the range of the field)
OUT_OF_RANGE: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "train.optim.lr_monitor", "val_mAP"),
    ({}, "model.pretrain_hw_ratio", 0),
    ({}, "model.stride_size", [16]),
    ({}, "model.drop_path", 1.5),
    ({}, "train.optim.momentum", 1.0),
    ({}, "train.optim.warmup_epochs", -1),
    ({}, "train.optim.center_lr", 0),
    ({"model.backbone": SWIN}, "model.last_stride", 3),
    ({"model.backbone": SWIN}, "train.optim.gamma", 0),
    ({"re_ranking.re_ranking": False}, "re_ranking.k1", 0),
    ({"dataset.sampler": "softmax"}, "train.optim.triplet_loss_margin", -1),
]


@pytest.mark.parametrize(("spec", "key", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_without_effect_is_left_out_with_a_note(
    spec: dict[str, Any], key: str, value: Any
) -> None:
    loaded = build_spec({}, spec | {key: value}, "test")
    assert loaded.experiment == build_experiment({}, spec, "test")
    assert loaded.notes[-1].startswith(f"no effect, so left out: {key}") and loaded.notes[-1].endswith(")")
    assert "\n".join(loaded.notes).count(key.rpartition(".")[2]) <= 2, "only the warning about the warm-up is another"


ACTIVE: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "model.last_stride", 2),
    ({"model.backbone": "convnext_tiny"}, "model.last_stride", 1),
    ({"model.backbone": "resnet50"}, "model.drop_path", 0.2),
    ({"model.backbone": "vit_tiny_patch16_224"}, "model.stride_size", [12, 12]),
    ({}, "model.pretrain_choice", ""),
    ({"model.pretrained_model_path": "x"}, "model.pretrain_choice", "self"),
    (
        {"model.backbone": "vit_tiny_patch16_224", "model.pretrained_model_path": "x", "model.pretrain_choice": "self"},
        "model.pretrain_hw_ratio",
        1,
    ),
    ({"model.backbone": SWIN}, "model.drop_path", 0.2),
    ({"model.backbone": SWIN}, "model.semantic_weight", 0.2),
    ({"dataset.color_jitter.prob": 0.5}, "dataset.color_jitter.hue", 0.2),
    ({"train.optim.plateau_patience": 3}, "train.optim.lr_monitor", "train_loss"),
    ({"train.optim.warmup_method": "constant"}, "train.optim.lr_steps", [3]),
    ({}, "model.feat_dim", 512),
    ({"model.reduce_feat_dim": True, "model.backbone": SWIN}, "model.feat_dim", 512),
    ({"model.reduce_feat_dim": False}, "model.feat_dim", 512),
    ({}, "model.neck_feat", "before"),
    ({}, "train.optim.large_fc_lr", True),
    ({}, "train.optim.triplet_loss_margin", 0.5),
    ({}, "model.id_loss_type", "arcface"),
    ({"model.id_loss_type": "circle"}, "train.optim.cosine_margin", 0.4),
    ({"model.id_loss_type": "cosface"}, "model.sub_centers", 3),
    ({"model.metric_loss_type": "lifted"}, "train.optim.pair_margin", 0.5),
    ({"model.metric_loss_type": "circle"}, "train.optim.pair_scale", 64),
    ({"model.metric_loss_type": "circle"}, "train.triplet_weight", 2.0),
    ({"dataset.validation": "holdout"}, "dataset.validation_fraction", 0.1),
    ({}, "re_ranking.k1", 10),
    ({"train.optim.name": "SGD"}, "train.optim.momentum", 0.8),
    ({}, "train.optim.lr_steps", [3]),
    ({"model.backbone": SWIN}, "train.optim.warmup_epochs", 3),
    ({"model.backbone": SWIN}, "train.optim.warmup_steps", 3),
    ({"model.backbone": SWIN}, "train.optim.min_lr_factor", 0.1),
    ({"train.optim.warmup_method": "flat_cosine"}, "train.optim.flat_fraction", 0.1),
    ({"train.optim.warmup_method": "one_cycle"}, "train.optim.warmup_epochs", 3),
]


@pytest.mark.parametrize(("spec", "key", "value"), ACTIVE)
def test_a_value_with_effect_is_accepted(spec: dict[str, Any], key: str, value: Any) -> None:
    experiment = build_experiment({}, spec | {key: value}, "test")
    assert key not in {idle.key for idle in unused_fields(experiment)}


def test_a_warm_up_as_long_as_the_run_is_a_warning() -> None:
    assert any("warmup_iters = 10 is not below train.num_epochs = 10" in line for line in find_warnings(build()))
    assert not any(line.startswith("warning") for line in find_warnings(build(train__num_epochs=11)))
    assert not any(line.startswith("warning") for line in find_warnings(build(train__optim__warmup_steps=99)))
    short = build(model__backbone=SWIN, train__num_epochs=5)
    assert any(line.startswith("warning: train.optim.warmup_epochs = 20") for line in find_warnings(short))


def test_one_line_lists_what_has_no_effect() -> None:
    keys = ("last_stride", "optim.warmup_iters", "optim.lr_steps", "optim.warmup_epochs", "jpm")
    tree = {"model": {"last_stride": 1, "jpm": False}, "train": {"optim": {"warmup_iters": 10, "lr_steps": [40]}}}
    loaded = build_spec(tree, {"model.backbone": SWIN, "train.optim.warmup_epochs": 3}, "test")
    assert all(any(key in given for given in loaded.user_keys) for key in keys)
    assert loaded.notes == (
        "no effect: last_stride (the backbone is a transformer); warmup_iters, lr_steps (the schedule is a cosine); "
        "model.jpm (the reference reads it for a Swin alone)",
    )


def test_the_line_about_effects_names_only_what_the_user_wrote() -> None:
    loaded = build_spec({"train": {"optim": {"momentum": 0.9}}}, {"train.num_epochs": 11}, "test")
    assert loaded.notes == ("no effect: momentum (the optimizer is not SGD)",)
    assert build_spec({}, {"train.num_epochs": 11}, "test").notes == ()


def test_the_default_of_the_reference_for_reduce_feat_dim_changes_nothing_of_a_resnet_50() -> None:
    loaded = build_spec({"model": {"reduce_feat_dim": False, "feat_dim": 256}}, {"train.num_epochs": 11}, "test")
    assert loaded.notes == ("no effect: reduce_feat_dim (a resnet_50 projects to feat_dim)",)
