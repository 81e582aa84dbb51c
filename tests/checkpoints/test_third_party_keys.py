from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor

from reid_tune.checkpoints.third_party_keys import extract_tensors, to_reid_tune_keys

ONE = torch.ones(1)


def names(*given: str) -> set[str]:
    return set(to_reid_tune_keys(dict.fromkeys(given, ONE)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"state": {}}},
        lambda weights: {"student": weights},
        lambda weights: {"student": {"other": ONE}, "teacher": weights},
        lambda weights: {"teacher": {"state_dict": OrderedDict(weights)}},
    ],
)
def test_weights_are_found_where_files_keep_them(wrap: Any) -> None:
    content = wrap({"conv1.weight": torch.nn.Parameter(torch.ones(2)), "version": 1})
    found = extract_tensors(content)
    assert list(found) == ["conv1.weight"]
    assert not found["conv1.weight"].requires_grad


def test_a_file_that_contains_itself_is_read_to_an_end() -> None:
    content: dict[str, Any] = {"w": ONE}
    content["model"] = content
    assert extract_tensors(content) == {"w": ONE}


@pytest.mark.parametrize(
    "prefix", ["", "backbone.", "module.", "base.", "model.", "model.base.", "module.backbone.", "backbone.module."]
)
def test_prefixes_are_removed(prefix: str) -> None:
    given = [f"{prefix}{name}" for name in ("conv1.weight", "layer1.0.bn1.running_mean", "fc.bias")]
    assert names(*given) == {"backbone.conv1.weight", "backbone.layer1.0.bn1.running_mean", "backbone.fc.bias"}


def test_weights_next_to_a_named_backbone_are_not_the_backbones() -> None:
    assert names("backbone.conv1.weight", "head.mlp.0.weight") == {"backbone.conv1.weight", "head.mlp.0.weight"}
    assert names("conv1.weight", "head.mlp.0.weight") == {"backbone.conv1.weight", "backbone.head.mlp.0.weight"}


def test_reid_tunes_names_are_unchanged() -> None:
    own = {
        "backbone.layers.1.downsample.norm.weight",
        "backbone.layers.3.downsample.semantic_scale.bias",
        "pooling.p",
        "projection.weight",
        "neck.running_mean",
        "classifier.weight",
    }
    assert names(*own) == own


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_the_heads_of_the_reference_and_of_solider_reid_are_found(prefix: str) -> None:
    heads = {"bottleneck.running_var": "neck.running_var", "classifier.weight": "classifier.weight"}
    heads["fcneck.weight"] = "projection.weight"
    given = [f"{prefix}base.conv1.weight", *(f"{prefix}{name}" for name in heads), "center_criterion.centers"]
    assert names(*given) == {"backbone.conv1.weight", *heads.values(), "center_criterion.centers"}


def test_the_references_convolution_before_pooling_is_a_projection() -> None:
    kernel = torch.randn(3, 8, 1, 1)
    found = to_reid_tune_keys({"model.base.feature.weight": kernel, "model.base.feature.bias": ONE})
    assert torch.equal(found["projection.weight"], kernel[:, :, 0, 0]) and found["projection.bias"] is ONE


def test_original_swins_merge_patches_one_stage_earlier_than_timms() -> None:
    theirs = {
        "layers.0.downsample.norm.weight",
        "layers.2.downsample.reduction.weight",
        "layers.0.blocks.0.attn.proj.bias",
    }
    ours = {
        "backbone.layers.1.downsample.norm.weight",
        "backbone.layers.3.downsample.reduction.weight",
        "backbone.layers.0.blocks.0.attn.proj.bias",
    }
    assert names(*theirs) == ours
    assert names(*(name.removeprefix("backbone.") for name in ours)) == ours


def test_names_of_an_mmdet_swin_become_timms() -> None:
    changed = {
        "patch_embed.projection.weight": "patch_embed.proj.weight",
        "patch_embed.norm.bias": "patch_embed.norm.bias",
        "stages.1.blocks.0.norm1.weight": "layers.1.blocks.0.norm1.weight",
        "stages.1.blocks.0.attn.w_msa.qkv.bias": "layers.1.blocks.0.attn.qkv.bias",
        "stages.3.blocks.1.attn.w_msa.proj.bias": "layers.3.blocks.1.attn.proj.bias",
        "stages.1.blocks.0.ffn.layers.0.0.weight": "layers.1.blocks.0.mlp.fc1.weight",
        "stages.1.blocks.0.ffn.layers.1.bias": "layers.1.blocks.0.mlp.fc2.bias",
        "stages.0.downsample.norm.weight": "layers.1.downsample.norm.weight",
        "norm0.weight": "norm0.weight",
        "norm3.weight": "norm.weight",
        "semantic_embed_w.2.weight": "layers.3.downsample.semantic_scale.weight",
        "semantic_embed_b.0.bias": "layers.1.downsample.semantic_shift.bias",
    }
    unused = ("semantic_embed_w.3.weight", "semantic_embed_b.3.bias")
    assert names(*changed, *unused) == {f"backbone.{name}" for name in changed.values()}


def test_an_mmdet_swins_merging_is_put_in_timms_order() -> None:
    def place(row: int, column: int, channel: int) -> float:
        return float(100 * row + 10 * column + channel)

    cells = [(row, column) for row in range(2) for column in range(2)]
    unfolded = torch.tensor([place(*cell, channel) for channel in range(3) for cell in cells])
    # timm concatenates the four neighbours' channels: top left, bottom left, top right, bottom right.
    wanted = torch.tensor([place(row, column, c) for row, column in [(0, 0), (1, 0), (0, 1), (1, 1)] for c in range(3)])
    given: dict[str, Tensor] = {
        "stages.0.blocks.0.attn.w_msa.qkv.bias": ONE,
        "stages.0.downsample.norm.bias": unfolded,
        "stages.0.downsample.reduction.weight": torch.stack([unfolded, -unfolded]),
    }
    found = to_reid_tune_keys(given)
    assert torch.equal(found["backbone.layers.1.downsample.norm.bias"], wanted)
    assert torch.equal(found["backbone.layers.1.downsample.reduction.weight"], torch.stack([wanted, -wanted]))


def test_odd_names_and_shapes_are_passed_on() -> None:
    odd = {"stages.0.blocks.0.attn.w_msa.x": ONE, "stages.x.downsample.norm.weight": ONE, "semantic_embed_w.": ONE}
    odd["model."] = odd[""] = torch.tensor(1)
    assert len(to_reid_tune_keys(odd)) == len(odd)
