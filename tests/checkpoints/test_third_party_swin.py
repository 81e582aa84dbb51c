from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_tune.checkpoints.third_party_file import read_third_party_weights
from reid_tune.checkpoints.weight_search import find_weights, network_keys
from reid_tune.config.model import Model
from reid_tune.modeling.network import ReIDNet, build_network
from reid_tune.modeling.weights import LoadReport, load_weights

Weights = dict[str, Tensor]


def load(path: Path, height: int = 64, width: int = 32, **values: object) -> tuple[ReIDNet, LoadReport]:
    model = Model(backbone="swin_tiny_patch4_window7_224", input_height=height, input_width=width, **values)
    network = build_network(model).eval()
    weights = find_weights(read_third_party_weights(path), network_keys(network)).tensors
    return network, load_weights(network, weights, hw_ratio=1)


def images(height: int = 64, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


# A Swin of mmdet's layout, written down from the paper (Liu et al., ICCV 2021) and mmdet's names.
DEPTHS, HEADS, WINDOW, SHIFT = (2, 2, 6, 2), (3, 6, 12, 24), 7, 3


@cache
def swin_weights() -> Weights:
    """Random weights of a Swin-T with SOLIDER's tables, by mmdet's names."""
    torch.manual_seed(3)
    made: Weights = {}

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        made[f"{name}.weight"] = torch.randn(rows, columns) / columns**0.5
        if bias:
            made[f"{name}.bias"] = torch.randn(rows) * 0.2

    def norm(name: str, size: int) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = torch.rand(size) + 0.5, torch.randn(size) * 0.2

    made["patch_embed.projection.weight"] = torch.randn(96, 3, 4, 4) / 48**0.5
    made["patch_embed.projection.bias"] = torch.randn(96) * 0.2
    norm("patch_embed.norm", 96)
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        size = 96 * 2**stage
        for block in range(depth):
            name = f"stages.{stage}.blocks.{block}"
            norm(f"{name}.norm1", size)
            made[f"{name}.attn.w_msa.relative_position_bias_table"] = torch.randn(13 * 13, heads)
            linear(f"{name}.attn.w_msa.qkv", 3 * size, size)
            linear(f"{name}.attn.w_msa.proj", size, size)
            norm(f"{name}.norm2", size)
            linear(f"{name}.ffn.layers.0.0", 4 * size, size)
            linear(f"{name}.ffn.layers.1", size, 4 * size)
        if stage < 3:
            norm(f"stages.{stage}.downsample.norm", 4 * size)
            linear(f"stages.{stage}.downsample.reduction", 2 * size, 4 * size, bias=False)
        norm(f"norm{stage}", size)
        linear(f"semantic_embed_w.{stage}", min(2 * size, 768), 2)
        linear(f"semantic_embed_b.{stage}", min(2 * size, 768), 2)
    return made


def swin_features(weights: Weights, x: Tensor, semantic: float | None) -> Tensor:
    """Features [batch, 768] of images [batch, 3, H, W]."""

    def linear(name: str, value: Tensor) -> Tensor:
        product = value @ weights[f"{name}.weight"].T
        return product + weights[f"{name}.bias"] if f"{name}.bias" in weights else product

    def norm(name: str, value: Tensor) -> Tensor:
        spread = (value.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return (value - value.mean(-1, keepdim=True)) / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attend(name: str, tokens: Tensor, regions: Tensor, heads: int) -> Tensor:
        """One window: tokens [batch, 49, C], and the region of each token [49]."""
        batch, count, size = tokens.shape
        q, k, v = linear(f"{name}.qkv", tokens).reshape(batch, count, 3, heads, size // heads).unbind(2)
        table = weights[f"{name}.relative_position_bias_table"]
        places = [(row, column) for row in range(WINDOW) for column in range(WINDOW)]
        bias = torch.stack([torch.stack([table[(a - c + 6) * 13 + b - d + 6] for c, d in places]) for a, b in places])
        scores = torch.einsum("bihd,bjhd->bijh", q, k) / (size // heads) ** 0.5 + bias
        scores = scores.masked_fill((regions[:, None] != regions[None])[:, :, None], -float("inf"))
        return linear(f"{name}.proj", torch.einsum("bijh,bjhd->bihd", scores.softmax(2), v).reshape(tokens.shape))

    def window_attention(name: str, value: Tensor, heads: int, shift: int) -> Tensor:
        height, width = value.shape[1:3]
        value = functional.pad(value, (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
        rows, columns = value.shape[1:3]
        # Tokens that the roll brought together from opposite ends do not see each other.
        ends = [torch.arange(size).ge(size - shift).long() if shift else torch.zeros(size) for size in (rows, columns)]
        regions = ends[0][:, None] * 2 + ends[1][None]
        value = value.roll((-shift, -shift), (1, 2))
        result = torch.zeros_like(value)
        for top in range(0, rows, WINDOW):
            for left in range(0, columns, WINDOW):
                cut = slice(top, top + WINDOW), slice(left, left + WINDOW)
                window = attend(name, value[:, *cut].flatten(1, 2), regions[cut].flatten(), heads)
                result[:, *cut] = window.unflatten(1, (WINDOW, WINDOW))
        return result.roll((shift, shift), (1, 2))[:, :height, :width]

    x = functional.conv2d(x, weights["patch_embed.projection.weight"], weights["patch_embed.projection.bias"], stride=4)
    x = norm("patch_embed.norm", x.permute(0, 2, 3, 1))
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        for block in range(depth):
            name = f"stages.{stage}.blocks.{block}"
            x = x + window_attention(f"{name}.attn.w_msa", norm(f"{name}.norm1", x), heads, SHIFT * (block % 2))
            hidden = functional.gelu(linear(f"{name}.ffn.layers.0.0", norm(f"{name}.norm2", x)))
            x = x + linear(f"{name}.ffn.layers.1", hidden)
        if stage == 3:
            break
        padded = functional.pad(x.permute(0, 3, 1, 2), (0, x.shape[2] % 2, 0, x.shape[1] % 2))
        unfolded = functional.unfold(padded, 2, stride=2).transpose(1, 2)
        name = f"stages.{stage}.downsample"
        x = linear(f"{name}.reduction", norm(f"{name}.norm", unfolded))
        x = x.unflatten(1, (padded.shape[2] // 2, padded.shape[3] // 2))
        if semantic is not None:
            s = torch.tensor([semantic, 1 - semantic])
            x = x * functional.softplus(linear(f"semantic_embed_w.{stage}", s)) + linear(f"semantic_embed_b.{stage}", s)
    return norm("norm3", x).mean((1, 2))


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(64, 32), (72, 40)])
@pytest.mark.parametrize("semantic", [0.2, 1.0, -1.0])
def test_soliders_swin_computes_what_it_did_there(tmp_path: Path, height: int, width: int, semantic: float) -> None:
    weights = swin_weights()
    heads = {"head.mlp.0.weight": torch.ones(2, 2)}
    content = {
        "student": {f"module.backbone.{name}": torch.zeros_like(tensor) for name, tensor in weights.items()},
        "teacher": {f"backbone.{name}": tensor for name, tensor in weights.items()} | heads,
    }
    torch.save(content, tmp_path / "solider.pth")
    network, matched = load(tmp_path / "solider.pth", height, width, semantic_weight=semantic)
    wanted = swin_features(weights, images(height, width), semantic if semantic >= 0 else None)
    torch.testing.assert_close(network.backbone(images(height, width)), wanted, rtol=1e-4, atol=1e-4)
    assert wanted.std() > 0.1
    assert matched.resized == () and {name.partition(".")[0] for name in matched.missing} <= {"projection", "neck"}
    assert {"backbone.norm0.weight", "head.mlp.0.weight"} <= set(matched.unused)


def as_microsoft(weights: Weights) -> Weights:
    """The same Swin by the names and the order of merged patches of the original code."""
    cells = [(0, 0), (1, 0), (0, 1), (1, 1)]
    made = {}
    for name, tensor in weights.items():
        if name.startswith(("norm0", "norm1", "norm2", "semantic_embed")):
            continue
        if ".downsample." in name:
            channels = tensor.shape[-1] // 4
            order = [4 * channel + 2 * row + column for row, column in cells for channel in range(channels)]
            tensor = tensor[..., order]
        for theirs, original in (
            ("stages.", "layers."),
            ("projection", "proj"),
            ("w_msa.", ""),
            ("ffn.layers.0.0", "mlp.fc1"),
            ("ffn.layers.1", "mlp.fc2"),
            ("norm3", "norm"),
        ):
            name = name.replace(theirs, original)
        made[name] = tensor
    made |= {"head.weight": torch.ones(1000, 768), "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    return made | {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.long)}


@torch.inference_mode()
def test_the_original_swin_computes_what_it_did_there(tmp_path: Path) -> None:
    weights = swin_weights()
    torch.save({"model": as_microsoft(weights)}, tmp_path / "swin_tiny_patch4_window7_224.pth")
    network, matched = load(tmp_path / "swin_tiny_patch4_window7_224.pth")
    wanted = swin_features(weights, images(), None)
    torch.testing.assert_close(network.backbone(images()), wanted, rtol=1e-4, atol=1e-4)
    assert matched.unused == ("backbone.head.weight",)


@torch.inference_mode()
def test_a_swin_of_the_reference_comes_with_its_projection_and_neck(tmp_path: Path) -> None:
    neck = nn.BatchNorm1d(32).state_dict()
    neck |= {"running_mean": torch.randn(32), "running_var": torch.rand(32) + 0.5, "weight": torch.rand(32) + 0.5}
    state = {f"model.base.{name}": tensor for name, tensor in swin_weights().items()}
    state |= {f"model.bottleneck.{name}": tensor for name, tensor in neck.items()}
    state |= {"model.fcneck.weight": torch.randn(32, 768) / 28, "model.classifier.weight": torch.randn(3, 32)}
    torch.save({"state_dict": state | {"center_criterion.centers": torch.randn(3, 32)}}, tmp_path / "a.ckpt")
    network, matched = load(tmp_path / "a.ckpt", feat_dim=32, semantic_weight=0.5)
    projected = swin_features(swin_weights(), images(), 0.5) @ state["model.fcneck.weight"].T
    normed = (projected - neck["running_mean"]) / (neck["running_var"] + 1e-5).sqrt() * neck["weight"] + neck["bias"]
    torch.testing.assert_close(network(images()), normed, rtol=1e-4, atol=1e-4)
    assert matched.missing == () and {"classifier.weight", "center_criterion.centers"} <= set(matched.unused)
