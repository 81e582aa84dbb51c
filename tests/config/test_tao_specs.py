"""Specs of the reference (NVIDIA TAO): real ones, and each field of its two pages with its documented values or none.

The tables and the files in `data` have facts of the pages and of public specs only: keys and values.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_tune.config.load import build_spec, load_spec, with_parameters
from reid_tune.config.model import pretrained_choice
from reid_tune.config.task_keys import TASKS
from reid_tune.config.yaml_reader import read_yaml
from reid_tune.errors import InputError

from .test_examples import EXAMPLES

DATA = Path(__file__).parent / "data"
TAO_TASKS = ("train", "evaluate", "inference", "export")
# Key: its default and the value of the example on the page for the ResNet; a third value, where the page has another.
RESNET_PAGE: dict[str, tuple[Any, ...]] = {
    "encryption_key": (None, "nvidia_tao"),
    "results_dir": ("/results", "/path/to/experiment_results"),
    "model.backbone": ("resnet_50", "resnet_50"),
    "model.last_stride": (1, 1),
    "model.pretrain_choice": ("imagenet", "imagenet", "self"),
    "model.pretrained_model_path": (None, "/path/to/pretrained_model.pth"),
    "model.input_channels": (3, 3),
    "model.input_width": (128, 128),
    "model.input_height": (256, 256),
    "model.neck": ("bnneck", "bnneck", ""),
    "model.feat_dim": (256, 256),
    "model.neck_feat": ("after", "after", "before"),
    "model.metric_loss_type": ("triplet", "triplet"),
    "model.with_center_loss": (False, False),
    "model.with_flip_feature": (False, False, True),
    "model.label_smooth": (True, True, False),
    "dataset.train_dataset_dir": (None, "/path/to/train_dataset_dir"),
    "dataset.test_dataset_dir": (None, "/path/to/test_dataset_dir"),
    "dataset.query_dataset_dir": (None, "/path/to/query_dataset_dir"),
    "dataset.num_classes": (751, 751),
    "dataset.batch_size": (64, 64),
    "dataset.val_batch_size": (128, 128),
    "dataset.num_workers": (1, 1),
    "dataset.pixel_mean": ([0.485, 0.456, 0.406], [0.485, 0.456, 0.406]),
    "dataset.pixel_std": ([0.226, 0.226, 0.226], [0.226, 0.226, 0.226]),
    "dataset.padding": (10, 10, 1),
    "dataset.prob": (0.5, 0.5),
    "dataset.re_prob": (0.5, 0.5),
    "dataset.sampler": ("softmax_triplet", "softmax_triplet", "softmax"),
    "dataset.num_instances": (4, 4),
    "re_ranking.re_ranking": (True, True, False),
    "re_ranking.k1": (20, 20),
    "re_ranking.k2": (6, 6),
    "re_ranking.lambda_value": (0.3, 0.3),
    "train.num_gpus": (1, 1),
    "train.gpu_ids": ([0], [0], [0, 1]),
    "train.seed": (1234, 1234),
    "train.num_epochs": (10, 10),
    "train.checkpoint_interval": (1, 5),
    "train.validation_interval": (1, 5),
    "train.resume_training_checkpoint_path": (None, None),
    "train.results_dir": ("/results/train", "${results_dir}/train"),
    "train.clip_grad_norm": (0.0, 0.0),
    "train.optim": (None, {"name": "Adam"}),
    "train.optim.name": ("Adam", "Adam", "Adamax"),
    "train.optim.lr_monitor": ("val_loss", "val_loss", "train_loss"),
    "train.optim.lr_steps": ([40, 70], [40, 70]),
    "train.optim.steps": ([40, 70], [40, 70]),
    "train.optim.gamma": (0.1, 0.1),
    "train.optim.bias_lr_factor": (1, 1),
    "train.optim.weight_decay": (0.0005, 0.0005),
    "train.optim.weight_decay_bias": (0.0005, 0.0005),
    "train.optim.warmup_factor": (0.01, 0.01),
    "train.optim.warmup_iters": (10, 10),
    "train.optim.warmup_method": ("linear", "linear", "cosine"),
    "train.optim.base_lr": (0.00035, 0.00035),
    "train.optim.momentum": (0.9, 0.9),
    "train.optim.center_loss_weight": (0.0005, 0.0005),
    "train.optim.center_lr": (0.5, 0.5),
    "train.optim.triplet_loss_margin": (0.3, 0.3),
    "evaluate.checkpoint": (None, "/path/to/model.pth"),
    "evaluate.output_sampled_matches_plot": (None, "/path/to/matches.png"),
    "evaluate.output_cmc_curve_plot": (None, "/path/to/cmc.png"),
    "evaluate.test_dataset": (None, "/path/to/test"),
    "evaluate.query_dataset": (None, "/path/to/query"),
    "evaluate.gpu_ids": ([0], [0]),
    "evaluate.num_gpus": (1, 1),
    "evaluate.results_dir": ("/results/evaluate", "/results/evaluate"),
    "inference.checkpoint": (None, "/path/to/model.pth"),
    "inference.output_file": (None, "/path/to/embeddings.json"),
    "inference.test_dataset": (None, "/path/to/test"),
    "inference.query_dataset": (None, "/path/to/query"),
    "inference.gpu_ids": ([0], [0]),
    "inference.num_gpus": (1, 1),
    "inference.results_dir": ("/results/inference", "/results/inference"),
    "export.checkpoint": (None, "/path/to/model.pth"),
    "export.onnx_file": (None, "/path/to/model.onnx"),
    "export.gpu_id": (0, 0),
}
# Keys that the page for the Swin adds, or for which it has other values.
SWIN_PAGE: dict[str, tuple[Any, ...]] = RESNET_PAGE | {
    "model.backbone": ("swin_tiny_patch4_window7_224", "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"),
    "model.pretrain_choice": ("self", "self", "imagenet"),
    "model.input_height": (384, 384),
    "model.stride_size": ([16, 16], [16, 16]),
    "model.feat_dim": (1024, 1024),
    "model.no_margin": (True, True, False),
    "model.label_smooth": (False, False, True),
    "model.pretrain_hw_ratio": (2, 2),
    "dataset.num_workers": (8, 8),
    "dataset.pixel_mean": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "dataset.pixel_std": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "train.num_epochs": (120, 120),
    "train.checkpoint_interval": (10, 10),
    "train.optim.name": ("SGD", "SGD"),
    "train.optim.bias_lr_factor": (2, 2),
    "train.optim.weight_decay": (0.0001, 0.0001),
    "train.optim.weight_decay_bias": (0.0001, 0.0001),
    "train.optim.warmup_epochs": (20, 20),
    "train.optim.warmup_method": ("cosine", "cosine"),
    "train.optim.base_lr": (0.0008, 0.0008),
    "train.optim.large_fc_lr": (False, False),
}
PAGES = {"resnet": RESNET_PAGE, "swin": SWIN_PAGE}
NOT_GIVEN = ("", None, "???")
# A spec that could never be trained, as its batch is smaller than one identity.
NEVER_TRAINED = {"user_evaluates_ngc_swin"}


def cases() -> Iterator[tuple[str, str]]:
    for page, fields in PAGES.items():
        for key in fields:
            yield page, key


@pytest.mark.parametrize(("page", "key"), cases())
def test_a_documented_field_is_never_refused(page: str, key: str) -> None:
    """Nothing else than the key's own value may differ between values that mean 'not given'."""
    tree = yaml.safe_load(EXAMPLES[page])
    for task in TAO_TASKS:
        for value in (*PAGES[page][key], *NOT_GIVEN):
            spec = build_spec(tree, {key: value}, "test", task)
            assert not any("\n" in note for note in spec.notes)
        empty = [build_spec(tree, {key: value}, "test", task).experiment for value in NOT_GIVEN[1:]]
        assert empty[0] == empty[1]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("value", NOT_GIVEN)
def test_a_spec_of_which_nothing_is_given_is_the_default_one(page: str, value: Any) -> None:
    tree = yaml.safe_load(EXAMPLES[page])
    kept = {"model.backbone", "model.neck", "model.pretrain_choice"}
    backbone = {"model.backbone": tree["model"]["backbone"]}
    nothing = dict.fromkeys(set(PAGES[page]) - kept, value) | backbone
    assert build_spec({}, nothing, "test").experiment == build_spec({}, backbone, "test").experiment


def test_the_empty_text_is_a_value_of_the_neck_and_of_pretrain_choice() -> None:
    resnet = {"model.neck": "", "model.pretrain_choice": "", "model.pretrained_model_path": "x.pth"}
    loaded = build_spec({}, resnet | {"train.num_epochs": 20}, "test")
    assert (loaded.experiment.model.neck, loaded.experiment.model.pretrain_choice) == ("", "")
    assert loaded.notes == ("no effect: pretrained_model_path (pretrain_choice is empty)",)
    for value in (None, "???"):
        model = build_spec({}, {"model.neck": value, "model.pretrain_choice": value}, "test").experiment.model
        assert (model.neck, model.pretrain_choice) == ("bnneck", "imagenet")


@pytest.mark.parametrize(
    ("backbone", "choice", "loaded_as"),
    [
        ("swin_tiny_patch4_window7_224", "", "imagenet"),
        ("swin_small_patch4_window7_224", "", "imagenet"),
        ("swin_base_patch4_window7_224", "", "imagenet"),
        ("swin_tiny_patch4_window7_224", "self", "self"),
        ("swin_large_patch4_window7_224", "", ""),
        ("swinv2_tiny_window8_256", "", ""),
        ("swin_s3_tiny_224", "", ""),
        ("vit_tiny_patch16_224", "", ""),
        ("resnet_50", "", ""),
    ],
)
@pytest.mark.parametrize("by_parameters", [False, True])
def test_only_the_backbone_of_the_references_swins_is_loaded_without_a_choice(
    backbone: str, choice: str, loaded_as: str, by_parameters: bool
) -> None:
    values = {"model.backbone": backbone, "model.pretrained_model_path": "x.pth", "train.num_epochs": 200}
    chosen = {"model.pretrain_choice": choice}
    if by_parameters:
        experiment = with_parameters(build_spec({}, values, "test").experiment, chosen, "test")
    else:
        loaded = build_spec({}, values | chosen, "test")
        experiment, notes = loaded.experiment, "\n".join(loaded.notes)
        assert (f"the backbone {backbone} is loaded from" in notes) == (choice == "" != loaded_as)
        assert ("pretrained_model_path (pretrain_choice is empty)" in notes) == (loaded_as == "")
    assert pretrained_choice(experiment.model) == loaded_as


@pytest.mark.parametrize("task", [None, *TAO_TASKS])
@pytest.mark.parametrize("path", sorted(DATA.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_real_spec_is_valid_for_every_task(path: Path, task: str | None) -> None:
    if path.stem in NEVER_TRAINED and task in (None, "train"):
        with pytest.raises(InputError, match="dataset.batch_size = 1: should be greater than or equal to 2"):
            load_spec(path, task=task)
        return
    loaded = build_spec(read_yaml(path), {}, path.name, task)
    assert len(loaded.notes) <= 5 and not any("\n" in note for note in loaded.notes)


def test_there_are_ten_real_specs() -> None:
    assert len(list(DATA.glob("*.yaml"))) >= 10


def test_a_spec_that_the_reference_wrote_trains_by_the_recipe_of_its_page() -> None:
    """All defaults of the reference, among them false for reduce_feat_dim, which it ignores with a ResNet."""
    dumped = load_spec(DATA / "tao_dump_resnet.yaml", task="train").experiment
    recipe = build_spec({}, {}, "test").experiment
    unused = {"cosine_margin": 0.5, "cosine_scale": 30.0}
    assert dumped.train.optim == recipe.train.optim.model_copy(update=unused)
    assert dumped.model == recipe.model.model_copy(
        update={"reduce_feat_dim": False, "last_stride": 1, "drop_path": 0.1}
    )
    assert not dumped.re_ranking.re_ranking


def test_values_without_effect_are_named_in_one_line() -> None:
    loaded = load_spec(DATA / "user_search_result.yaml")
    (line,) = [note for note in loaded.notes if note.startswith("no effect: ")]
    for key in (
        *("drop_path", "semantic_weight", "triplet_loss_margin", "k1", "momentum", "warmup_epochs", "model.jpm"),
        *(
            "model.gem_pooling",
            "train.optim.trp_l2",
            "evaluate.batch_size",
            "evaluate.trt_engine",
            "evaluate.num_nodes",
        ),
    ):
        assert key in line
    (left_out,) = [note for note in loaded.notes if note.startswith("no effect, so left out: ")]
    assert "train.optim.lr_monitor = 'mAP'" in left_out


@pytest.mark.parametrize("task", TASKS)
def test_tasks_read_the_sections_of_their_own_names(task: str) -> None:
    wrong = {"evaluate.fmr": 7, "inference.num_gpus": "many", "export.gpu_id": -1, "train.num_epochs": "x"}
    own = {key for key in wrong if key.startswith(f"{task}.")}
    loaded = build_spec({}, {key: value for key, value in wrong.items() if key not in own}, "test", task)
    (note,) = [note for note in loaded.notes if "does not read" in note]
    assert all(key in note for key in set(wrong) - own)
    if own:
        with pytest.raises(InputError, match=own.pop()):
            build_spec({}, wrong, "test", task)


# (file, overrides, task, the key that the message names, its line)
NEEDED = [
    ("nvidia_placeholders", [], "train", "dataset.train_dataset_dir", 4),
    ("nvidia_placeholders", [], "evaluate", "evaluate.checkpoint", 12),
    ("nvidia_placeholders", ["evaluate.checkpoint=x"], "evaluate", "evaluate.test_dataset", 12),
    (
        "nvidia_placeholders",
        ["inference.checkpoint=x", "inference.test_dataset=x"],
        "inference",
        "inference.query_",
        11,
    ),
    ("empty_template", [], "train", "dataset.train_dataset_dir", 7),
    ("empty_template", ["evaluate.checkpoint=x", "dataset.test_dataset_dir=x"], "evaluate", "evaluate.query_data", 10),
    ("tao_dump_resnet", [], "inference", "inference.checkpoint", 12),
    ("user_search_result", ["dataset.test_dataset_dir="], "evaluate", "dataset.test_dataset_dir", None),
    ("user_linear_warmup_epochs", [], "train", "dataset.train_dataset_dir", None),
    ("nvidia_placeholders", [], "export", "export.checkpoint", 13),
    ("tao_dump_resnet", [], "export", "export.checkpoint", 13),
]


@pytest.mark.parametrize(("name", "overrides", "task", "key", "line"), NEEDED)
def test_a_field_that_the_task_needs_is_named_with_file_and_line(
    name: str, overrides: list[str], task: str, key: str, line: int | None
) -> None:
    path = DATA / f"{name}.yaml"
    position = f"{path}, line {line}: " if line else f"{path}: "
    with pytest.raises(InputError, match=f"^{position}{key}[a-z_]* is not set: give the|a checkpoint") as caught:
        load_spec(path, overrides, task)
    assert str(caught.value).startswith(f"{position}{key}") and "\n" not in str(caught.value)


REFERENCES: list[tuple[dict[str, Any], str, str]] = [
    # (values, the message for all tasks, empty if valid; a task that does not mind)
    ({"evaluate.checkpoint": "${export.checkpoint}"}, "", "train"),
    ({"evaluate.checkpoint": "${train.results_dir}/reid_model_latest.pth"}, "", "train"),
    (
        {"evaluate.checkpoint": "${export.checkpoint}/x"},
        "export.checkpoint is not given, and evaluate.checkpoint",
        "train",
    ),
    ({"inference.output_file": "${evaluate.test_dataset}.json"}, "evaluate.test_dataset is not given, and", "evaluate"),
    (
        {
            "evaluate.query_dataset": "${evaluate.test_dataset}/q",
            "evaluate.test_dataset": "${dataset.test_dataset_dir}",
        },
        "dataset.test_dataset_dir is not given, and evaluate.query_dataset refers to it",
        "inference",
    ),
    ({"train.seed": "${nowhere}"}, "train.seed: the key 'nowhere' was not found", "export"),
    (
        {"export.onnx_file": "${oc.env:REID_TUNE_NOT_SET}"},
        "the environment variable REID_TUNE_NOT_SET is not set",
        "train",
    ),
    ({"train.results_dir": "${oc.env:REID_TUNE_NOT_SET,somewhere}/x"}, "", "train"),
    (
        {"train.results_dir": "${.resume_training_checkpoint_path}/x"},
        "train.resume_training_checkpoint_path is",
        "export",
    ),
]


@pytest.mark.parametrize(("values", "message", "task"), REFERENCES)
def test_a_reference_to_a_field_that_is_not_given_names_that_field(
    values: dict[str, Any], message: str, task: str
) -> None:
    build_spec({}, values, "test", task)
    if not message:
        build_spec({}, values, "test")
        return
    with pytest.raises(InputError, match=message):
        build_spec({}, values, "test")


UNKNOWN: list[tuple[str, str, bool]] = [
    # (an unknown key, a task, whether it is an error there)
    ("train.num_epoch", "train", True),
    ("train.num_epoch", "evaluate", False),
    ("train.optim.lr", "export", False),
    ("evaluate.chekpoint", "evaluate", True),
    ("evaluate.chekpoint", "train", False),
    ("inference.output", "inference", True),
    ("inference.output", "evaluate", False),
    ("export.opset", "export", True),
    ("export.opset", "inference", False),
    ("model.backbon", "evaluate", True),
    ("dataset.batchsize", "export", True),
    ("re_ranking.k3", "train", False),
    ("re_ranking.k3", "evaluate", True),
    ("trian.num_epochs", "evaluate", True),
    # keys of sections that the task does not read, next to fields that it reads
    ("model.input_heigth", "check-data", True),
    ("model.inputwidth", "check-data", True),
    ("model.back_bone", "check-data", False),
    ("train.detreministic", "evaluate", True),
    ("train.determinstic", "inference", True),
    ("train.determinstic", "export", False),
    ("train.sead", "evaluate", True),
    ("train.sead", "inference", False),
    ("dataset.validation_sed", "split", True),
    ("dataset.validation_sed", "evaluate", True),
    ("model.input.heigth", "check-data", False),
    ("train.batch_size", "check-data", False),
    ("model.pretrain_hw_ratios", "evaluate", True),
    ("model.pretrain_hw_ratios", "export", True),
    ("model.pretrain_hw_ratios", "split", False),
]


@pytest.mark.parametrize(("key", "task", "is_error"), UNKNOWN)
def test_an_unknown_key_is_an_error_where_the_task_reads_its_section(key: str, task: str, is_error: bool) -> None:
    if is_error:
        with pytest.raises(InputError, match=f"unknown key {key}"):
            build_spec({}, {key: 3}, "test", task)
    else:
        (note,) = [note for note in build_spec({}, {key: 3}, "test", task).notes if "does not read" in note]
        assert f"unknown key {key}" in note
    with pytest.raises(InputError, match=f"unknown key {key}"):
        build_spec({}, {key: 3}, "test")


def test_a_checkpoint_of_an_argument_replaces_that_of_the_spec() -> None:
    loaded = load_spec(DATA / "nvidia_placeholders.yaml", task="export", arguments={"export.checkpoint": "models:/a@b"})
    assert loaded.experiment.export.checkpoint == "models:/a@b"
    assert not any("export.checkpoint" in note for note in loaded.notes)


# Keys without effect whose references cannot be resolved, and what they are called in the line about them.
UNRESOLVED: list[tuple[dict[str, Any], str]] = [
    ({"wandb.name": "${oc.env:REID_TUNE_NOT_SET}"}, "wandb.name"),
    ({"wandb.key": "${oc.env:REID_TUNE_API_KEY}"}, "wandb.key"),
    ({"wandb.tags": ["${oc.env:REID_TUNE_NOT_SET}"]}, "wandb.tags"),
    ({"wandb.project": "${model_name}", "model_name": "???"}, "wandb.project"),
    ({"wandb.project": "a ${model_name}", "model_name": ""}, "wandb.project"),
    ({"wandb.project": "${nowhere}"}, "wandb.project"),
    ({"wandb.name": "${wandb.name}"}, "wandb.name"),
    ({"wandb.name": "${"}, "wandb.name"),
    ({"model.gem_pooling": "${oc.env:REID_TUNE_NOT_SET}"}, "model.gem_pooling"),
    ({"model.jpm": "${oc.env:REID_TUNE_NOT_SET}"}, "model.jpm"),
    ({"train.optim.trp_l2": "${now:%Y}"}, "train.optim.trp_l2"),
    ({"model_name": "${oc.env:REID_TUNE_NOT_SET}"}, "model_name"),
]


@pytest.mark.parametrize(("values", "name"), UNRESOLVED)
def test_a_key_without_effect_is_named_once_whatever_its_reference(values: dict[str, Any], name: str) -> None:
    for task in (None, "train"):
        (line,) = build_spec({}, values | {"train.num_epochs": 20}, "test", task).notes
        assert line.startswith("no effect: ") and name in line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.id_loss_type": "${nowhere}"}, "model.id_loss_type: the key 'nowhere' was not found"),
        ({"train.num_nodes": "${oc.env:REID_TUNE_NOT_SET}"}, "train.num_nodes: the environment variable"),
        ({"model.jpm": "${nowhere}", "model.backbone": "swin_tiny_patch4_window7_224"}, "model.jpm: the key 'nowhere'"),
        ({"results_dir": "/r/${model_name}", "model_name": "???"}, "model_name is not given, and results_dir refers"),
        ({"results_dir": "/r/${wandb.name}", "wandb.name": None}, "wandb.name is not given, and results_dir refers"),
    ],
)
def test_a_reference_that_matters_must_be_resolved(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_spec({}, values, "test", "train")


@pytest.mark.parametrize("task", ["evaluate", "inference", "export"])
@pytest.mark.parametrize(("backbone", "has_effect"), [("vit_tiny_patch16_224", True), ("resnet_50", False)])
def test_tasks_that_open_weights_of_other_tools_read_the_ratio_of_a_vit(
    task: str, backbone: str, has_effect: bool
) -> None:
    notes = build_spec({}, {"model.backbone": backbone, "model.pretrain_hw_ratio": 1}, "test", task).notes
    assert any("pretrain_hw_ratio" in note for note in notes) == (not has_effect)
    wrong = {"model.backbone": backbone, "model.pretrain_hw_ratio": -1}
    if has_effect:
        with pytest.raises(InputError, match="model.pretrain_hw_ratio = -1"):
            build_spec({}, wrong, "test", task)
    else:
        (note,) = build_spec({}, wrong, "test", task).notes
        assert note.startswith("no effect, so left out: model.pretrain_hw_ratio = -1")
