"""The documentation's two examples, the tables of defaults, and the repository's own specs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_tune.config.checks import find_warnings
from reid_tune.config.defaults import SWIN_DEFAULTS, backbone_defaults
from reid_tune.config.experiment import Experiment, canonical_key, flatten, leaf_fields
from reid_tune.config.load import build_experiment, load_experiment
from reid_tune.config.unused_fields import unused_fields
from reid_tune.config.yaml_reader import read_yaml

CONFIGS = Path(__file__).parents[2] / "configs"

RESNET = """
results_dir: "/path/to/experiment_results"
encryption_key: nvidia_tao
model:
  backbone: resnet_50
  last_stride: 1
  pretrain_choice: imagenet
  pretrained_model_path: "/path/to/pretrained_model.pth"
  input_channels: 3
  input_width: 128
  input_height: 256
  neck: bnneck
  feat_dim: 256
  neck_feat: after
  metric_loss_type: triplet
  with_center_loss: False
  with_flip_feature: False
  label_smooth: True
dataset:
  train_dataset_dir: "/path/to/train_dataset_dir"
  test_dataset_dir: "/path/to/test_dataset_dir"
  query_dataset_dir: "/path/to/query_dataset_dir"
  num_classes: 751
  batch_size: 64
  val_batch_size: 128
  num_workers: 1
  pixel_mean: [0.485, 0.456, 0.406]
  pixel_std: [0.226, 0.226, 0.226]
  padding: 10
  prob: 0.5
  re_prob: 0.5
  sampler: softmax_triplet
  num_instances: 4
re_ranking:
  re_ranking: True
  k1: 20
  k2: 6
  lambda_value: 0.3
train:
  results_dir: "${results_dir}/train"
  optim:
    name: Adam
    lr_monitor: val_loss
    steps: [40, 70]
    gamma: 0.1
    bias_lr_factor: 1
    weight_decay: 0.0005
    weight_decay_bias: 0.0005
    warmup_factor: 0.01
    warmup_iters: 10
    warmup_method: linear
    base_lr: 0.00035
    momentum: 0.9
    center_loss_weight: 0.0005
    center_lr: 0.5
    triplet_loss_margin: 0.3
  num_epochs: 10
  checkpoint_interval: 5
  validation_interval: 5
  seed: 1234
"""

SWIN_TINY = """
results_dir: "/path/to/experiment_results"
encryption_key: nvidia_tao
model:
  backbone: swin_tiny_patch4_window7_224
  last_stride: 1
  pretrain_choice: self
  pretrained_model_path: "/path/to/pretrained_model.pth"
  input_channels: 3
  input_width: 128
  input_height: 384
  neck: bnneck
  stride_size: [16, 16]
  feat_dim: 1024
  no_margin: True
  neck_feat: after
  metric_loss_type: triplet
  with_center_loss: False
  with_flip_feature: False
  label_smooth: False
  pretrain_hw_ratio: 2
dataset:
  train_dataset_dir: "/path/to/train_dataset_dir"
  test_dataset_dir: "/path/to/test_dataset_dir"
  query_dataset_dir: "/path/to/query_dataset_dir"
  num_classes: 751
  batch_size: 64
  val_batch_size: 128
  num_workers: 8
  pixel_mean: [0.5, 0.5, 0.5]
  pixel_std: [0.5, 0.5, 0.5]
  padding: 10
  prob: 0.5
  re_prob: 0.5
  sampler: softmax_triplet
  num_instances: 4
re_ranking:
  re_ranking: True
  k1: 20
  k2: 6
  lambda_value: 0.3
train:
  results_dir: "${results_dir}/train"
  optim:
    name: SGD
    lr_steps: [40, 70]
    gamma: 0.1
    bias_lr_factor: 2
    weight_decay: 0.0001
    weight_decay_bias: 0.0001
    warmup_factor: 0.01
    warmup_epochs: 20
    warmup_method: cosine
    base_lr: 0.0008
    momentum: 0.9
    center_loss_weight: 0.0005
    center_lr: 0.5
    triplet_loss_margin: 0.3
    large_fc_lr: False
  num_epochs: 120
  checkpoint_interval: 10
"""

EXAMPLES = {"resnet": RESNET, "swin": SWIN_TINY}
# What a user of an example has to give; all its other values belong to the recipe.
OWN = re.compile(r"/path/to|\$\{|nvidia_tao")


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_an_example_of_the_documentation_is_valid_and_keeps_its_values(text: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    experiment = load_experiment(path)
    given = {canonical_key(key): value for key, value in flatten(read_yaml(path)).items()}
    assert given.pop("train.results_dir") == "${results_dir}/train"
    assert {key: plain(experiment.value(key)) for key in given} == given
    assert experiment.task_dir("train") == Path("/path/to/experiment_results/train")
    assert not any(idle.is_refused for idle in unused_fields(experiment))


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_defaults_are_the_examples_values(text: str) -> None:
    given = {key: value for key, value in flatten(yaml.safe_load(text)).items() if not OWN.search(str(value))}
    given.pop("train.optim.steps", None)
    table = backbone_defaults(given["model.backbone"])
    unlike = {key for key, value in given.items() if plain(table[key]) != value}
    # The default of last_stride, null, is the examples' value for a ResNet.
    assert unlike <= {"model.last_stride", "train.checkpoint_interval", "train.validation_interval"}


def test_swin_backbones_get_swin_defaults_and_others_do_not() -> None:
    swin = build_experiment({}, {"model.backbone": "swin_base_patch4_window7_224"}, "test")
    assert {key: swin.value(key) for key in SWIN_DEFAULTS if key != "model.backbone"} == {
        key: value for key, value in SWIN_DEFAULTS.items() if key != "model.backbone"
    }
    assert swin.model.backbone == "swin_base_patch4_window7_224"
    assert build_experiment({"model": {"backbone": "resnet18"}}, {}, "test").train == Experiment().train
    own = build_experiment({"model": {"backbone": "swin_tiny_patch4_window7_224", "input_height": 256}}, {}, "test")
    assert (own.model.input_height, own.model.feat_dim) == (256, 1024)


def test_defaults_build_a_valid_experiment_without_notes_of_deliberate_values() -> None:
    for backbone in ("resnet_50", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"):
        experiment = build_experiment({}, {"model.backbone": backbone}, "test")
        assert not any(idle.is_refused for idle in unused_fields(experiment))


def test_every_field_has_help_and_a_default() -> None:
    found = dict(leaf_fields())
    assert len(found) > 70
    assert [key for key, field in found.items() if not (field.description or "").endswith(".")] == []
    assert [key for key, field in found.items() if field.is_required()] == []
    assert set(found) == set(flatten(Experiment().model_dump()))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_spec_of_the_repository_loads_and_begins_with_its_command(path: Path) -> None:
    load_experiment(path)
    first = path.read_text().splitlines()[0]
    assert re.fullmatch(rf"# (reid-tune .+ && )?reid-tune train -e configs/{path.name}", first)


def test_the_demo_trains_by_the_resnet_recipe() -> None:
    demo, recipe = (load_experiment(CONFIGS / f"{name}.yaml") for name in ("demo", "resnet50_market1501"))
    unlike = {key for key, value in recipe.train.optim if getattr(demo.train.optim, key) != value}
    assert unlike == {"lr_steps", "warmup_iters"}
    assert all(step < demo.train.num_epochs for step in demo.train.optim.lr_steps)
    assert not any(line.startswith("warning") for line in find_warnings(demo))
