import pytest
import torch
from torch import Tensor

from reid_tune.checkpoints.third_party_keys import translations

ONE = torch.ones(1)


def translated(names: list[str], *children: str) -> set[str]:
    return set(translations(dict.fromkeys(names, ONE), children)[-1])


@pytest.mark.parametrize(
    ("name", "timm_name"),
    [
        ("stages.1.blocks.0.norm1.weight", "layers.1.blocks.0.norm1.weight"),
        ("patch_embed.projection.weight", "patch_embed.proj.weight"),
        ("patch_embed.norm.bias", "patch_embed.norm.bias"),
        ("stages.1.blocks.0.attn.w_msa.qkv.bias", "layers.1.blocks.0.attn.qkv.bias"),
        ("stages.3.blocks.1.attn.w_msa.proj.bias", "layers.3.blocks.1.attn.proj.bias"),
        ("stages.1.blocks.0.ffn.layers.0.0.weight", "layers.1.blocks.0.mlp.fc1.weight"),
        ("stages.1.blocks.0.ffn.layers.1.bias", "layers.1.blocks.0.mlp.fc2.bias"),
        ("stages.0.downsample.norm.weight", "layers.1.downsample.norm.weight"),
        ("norm0.weight", "norm0.weight"),
        ("norm3.weight", "norm.weight"),
        ("semantic_embed_w.2.weight", "layers.3.downsample.semantic_scale.weight"),
        ("semantic_embed_b.0.bias", "layers.1.downsample.semantic_shift.bias"),
        ("semantic_embed_b.3.bias", None),
    ],
)
def test_names_of_an_mmdet_swin_become_timms(name: str, timm_name: str | None) -> None:
    shown_by = "stages.3.blocks.1.attn.w_msa.qkv.weight"
    expected = {"layers.3.blocks.1.attn.qkv.weight", timm_name} - {None}
    assert translated([name, shown_by]) == expected


@pytest.mark.parametrize(
    ("clip", "torchvision", "timm_name"),
    [
        ("conv1.weight", "conv_proj.weight", "patch_embed.proj.weight"),
        ("class_embedding", "class_token", "cls_token"),
        ("positional_embedding", "encoder.pos_embedding", "pos_embed"),
        ("ln_pre.bias", None, "norm_pre.bias"),
        ("ln_post.weight", "encoder.ln.weight", "norm.weight"),
        (
            "transformer.resblocks.3.ln_2.bias",
            "encoder.layers.encoder_layer_3.ln_2.bias",
            "blocks.3.norm2.bias",
        ),
        (
            "transformer.resblocks.0.attn.in_proj_bias",
            "encoder.layers.encoder_layer_0.self_attention.in_proj_bias",
            "blocks.0.attn.qkv.bias",
        ),
        (
            "transformer.resblocks.0.attn.out_proj.weight",
            "encoder.layers.encoder_layer_0.self_attention.out_proj.weight",
            "blocks.0.attn.proj.weight",
        ),
        (
            "transformer.resblocks.11.mlp.c_fc.weight",
            "encoder.layers.encoder_layer_11.mlp.0.weight",
            "blocks.11.mlp.fc1.weight",
        ),
        (
            "transformer.resblocks.11.mlp.c_proj.bias",
            "encoder.layers.encoder_layer_11.mlp.linear_2.bias",
            "blocks.11.mlp.fc2.bias",
        ),
    ],
)
def test_names_of_other_vision_transformers_become_timms(clip: str, torchvision: str | None, timm_name: str) -> None:
    shown_by = "transformer.resblocks.0.attn.in_proj_weight"
    assert translated([clip, shown_by]) == {timm_name, "blocks.0.attn.qkv.weight"}
    if torchvision:
        shown_by = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
        assert translated([torchvision, shown_by]) == {timm_name, "blocks.0.attn.qkv.weight"}


def test_tokens_of_a_vision_transformer_get_timms_leading_axis() -> None:
    tensors = {"a.attn.in_proj_weight": ONE, "class_embedding": torch.ones(8), "positional_embedding": torch.ones(5, 8)}
    renamed = translations(tensors, ())[-1]
    assert renamed["cls_token"].shape == (1, 1, 8) and renamed["pos_embed"].shape == (1, 5, 8)


def test_numbered_children_get_their_names() -> None:
    children = ("conv1", "bn1", "act1", "maxpool", "layer1")
    assert translated(["0.weight", "1.running_mean", "4.0.bn2.bias", "9.x"], *children) == {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.bn2.bias",
        "9.x",
    }


def test_original_swins_merge_patches_one_stage_earlier_than_timms() -> None:
    original = [
        "layers.0.downsample.norm.weight",
        "layers.2.downsample.reduction.weight",
        "layers.0.blocks.0.attn.proj.bias",
    ]
    assert translated(original) == {
        "layers.1.downsample.norm.weight",
        "layers.3.downsample.reduction.weight",
        "layers.0.blocks.0.attn.proj.bias",
    }


def test_an_mmdet_swins_merging_is_put_in_timms_order() -> None:
    def value(row: int, column: int, channel: int) -> float:
        return float(100 * row + 10 * column + channel)

    cells = [(row, column) for row in range(2) for column in range(2)]
    unfolded = torch.tensor([value(*cell, channel) for channel in range(3) for cell in cells])
    # timm concatenates the four neighbours' channels: top left, bottom left, top right, bottom right.
    order = [(0, 0), (1, 0), (0, 1), (1, 1)]
    expected = torch.tensor([value(row, column, channel) for row, column in order for channel in range(3)])
    tensors: dict[str, Tensor] = {
        "stages.0.blocks.0.attn.w_msa.qkv.bias": ONE,
        "stages.0.downsample.norm.bias": unfolded,
        "stages.0.downsample.reduction.weight": torch.stack([unfolded, -unfolded]),
    }
    renamed = translations(tensors, ())[-1]
    assert torch.equal(renamed["layers.1.downsample.norm.bias"], expected)
    assert torch.equal(renamed["layers.1.downsample.reduction.weight"], torch.stack([expected, -expected]))


def test_odd_names_and_shapes_are_passed_on() -> None:
    odd = {"stages.0.blocks.0.attn.w_msa.x": ONE, "stages.x.downsample.norm.weight": ONE, "semantic_embed_w.": ONE}
    odd |= {"model.": torch.tensor(1), "": torch.tensor(1), "0.": ONE, "a.attn.in_proj_weight": ONE}
    assert all(len(renamed) == len(odd) for renamed in translations(odd, ("conv1",)))
