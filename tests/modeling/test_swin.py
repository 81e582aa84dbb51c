import math
from itertools import product
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional

from reid_tune.modeling.backbone import build_backbone
from reid_tune.modeling.network import ReIDNet, build_network, build_seeded_network
from reid_tune.modeling.swin import PaddedBlock

from ..helpers.small_networks import SMALL_SWIN
from .conftest import images, model

WINDOW = 7


def swin(height: int = 64, width: int = 32, **values: object) -> ReIDNet:
    return build_seeded_network(model(SMALL_SWIN, height, width, **values), 5, 1).eval()


def randomise_tables(network: ReIDNet) -> None:
    for name, parameter in network.named_parameters():
        if "semantic" in name:
            nn.init.normal_(parameter, std=0.5)


def attention_by_loops(block: SwinTransformerBlock, maps: Tensor, shift: int) -> Tensor:
    """Attention [H, W, C] of one normed map [H, W, C]: padded with zeros, cut into windows that are shifted by `shift`.

    The windows are those of the padded map rolled by the shift. A token attends to the tokens of its window, and with
    -100 to those that the roll has brought together with it from the other side.
    """
    height, width, channels = maps.shape
    rows, columns = (math.ceil(size / WINDOW) * WINDOW for size in (height, width))
    padded = torch.zeros(rows, columns, channels)
    padded[:height, :width] = maps
    heads, dimension = block.attn.num_heads, channels // block.attn.num_heads
    attended = torch.empty(rows, columns, channels)
    for top, left in product(range(0, rows, WINDOW), range(0, columns, WINDOW)):
        rolled = [(top + row, left + column) for row, column in product(range(WINDOW), range(WINDOW))]
        places = [((row + shift) % rows, (column + shift) % columns) for row, column in rolled]
        wrapped = [(row + shift >= rows, column + shift >= columns) for row, column in rolled]
        queries, keys, values = block.attn.qkv(torch.stack([padded[place] for place in places])).split(channels, 1)
        joined = torch.empty(len(places), channels)
        for head in range(heads):
            part = slice(head * dimension, (head + 1) * dimension)
            scores = queries[:, part] @ keys[:, part].T / math.sqrt(dimension)
            for one, other in product(range(len(places)), range(len(places))):
                down, right = (rolled[one][axis] - rolled[other][axis] + WINDOW - 1 for axis in (0, 1))
                scores[one, other] += block.attn.relative_position_bias_table[down * (2 * WINDOW - 1) + right, head]
                if wrapped[one] != wrapped[other]:
                    scores[one, other] -= 100
            joined[:, part] = scores.softmax(1) @ values[:, part]
        for place, row in zip(places, block.attn.proj(joined), strict=True):
            attended[place] = row
    return attended[:height, :width]


@pytest.mark.parametrize(("height", "width"), [(9, 5), (3, 2), (7, 14)])
@pytest.mark.parametrize("shift", [0, 3])
@torch.inference_mode()
def test_windows_are_those_of_the_padded_map(height: int, width: int, shift: int) -> None:
    block = PaddedBlock(8, (height, width), num_heads=2, window_size=WINDOW, shift_size=shift, always_partition=True)
    nn.init.normal_(block.attn.relative_position_bias_table)
    nn.init.normal_(block.attn.qkv.bias)  # makes the padding matter
    maps = torch.randn(2, height, width, 8)
    expected = torch.stack([attention_by_loops(block, single, shift) for single in maps])
    torch.testing.assert_close(block._attn(maps), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
@pytest.mark.parametrize(("height", "width"), [(384, 128), (256, 128), (64, 32)])
def test_windows_are_seven_and_shifted_in_every_odd_block(size: str, height: int, width: int) -> None:
    with torch.device("meta"):
        backbone, _, dimension = build_backbone(model(f"swin_{size}_patch4_window7_224", height, width))
        theirs = timm.create_model(f"swin_{size}_patch4_window7_224", num_classes=0)
    assert dimension == (1024 if size == "base" else 768)
    for stage in backbone.layers:
        for number, block in enumerate(stage.blocks):
            assert isinstance(block, PaddedBlock) and block.window_size == (7, 7)
            assert block.shift_size == ((3, 3) if number % 2 else (0, 0))
    shapes = {name: tensor.shape for name, tensor in backbone.state_dict().items() if "semantic" not in name}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}


@pytest.mark.parametrize(("height", "width"), [(61, 35), (64, 33), (50, 36)])
def test_odd_images_are_padded_at_the_bottom_and_the_right(height: int, width: int) -> None:
    odd, even = swin(height, width), swin(64 if height > 60 else 52, 36)
    even.load_state_dict(odd.state_dict())
    padded = torch.zeros(4, 3, 64 if height > 60 else 52, 36)
    padded[:, :, :height, :width] = images(height, width)
    with torch.inference_mode():
        torch.testing.assert_close(odd(images(height, width)), even(padded))


@pytest.mark.parametrize("weight", [0.2, 1.0, 0.0])
@torch.inference_mode()
def test_modulation_is_the_formula_after_each_step_between_stages(weight: float) -> None:
    network = swin(semantic_weight=weight)
    randomise_tables(network)
    semantics = torch.tensor([weight, 1 - weight])
    x = network.backbone.layers[0](network.backbone.patch_embed(images()))
    for stage in network.backbone.layers[1:]:
        step = stage.downsample
        merged = PatchMerging.forward(step, x)
        scale = torch.log(1 + torch.exp(step.semantic_scale(semantics)))
        x = stage.blocks(merged * scale + step.semantic_shift(semantics))
    expected = network.backbone.norm(x).mean((1, 2))
    torch.testing.assert_close(network.backbone(images()), expected, atol=1e-4, rtol=1e-4)
    plain = swin(semantic_weight=-1)
    assert (plain.backbone(images()) - expected).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_without_pretrained_tables_the_modulation_is_the_identity(weight: float, dtype: torch.dtype) -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        modulated, plain = (swin(semantic_weight=value).backbone(images()) for value in (weight, -1))
    assert modulated.dtype == plain.dtype and torch.equal(modulated, plain)


def test_tables_are_not_trained_and_all_else_is() -> None:
    network = swin(semantic_weight=0.2).train()
    network.logits(network.features(images())).square().sum().backward()
    parameters = dict(network.named_parameters())
    tables = {name for name in parameters if "semantic" in name}
    assert len(tables) == 12
    for name, parameter in parameters.items():
        assert parameter.requires_grad is (name not in tables and name != "neck.bias")
        assert (parameter.grad is not None) is parameter.requires_grad, name


def test_tables_have_the_dimension_of_the_next_stage() -> None:
    network = swin()
    for stage, channels in ((1, 48), (2, 96), (3, 192)):
        step = network.backbone.layers[stage].downsample
        for table in (step.semantic_scale, step.semantic_shift):
            assert table.weight.shape == (channels, 2) and table.bias.shape == (channels,)
    assert type(swin(semantic_weight=-1).backbone.layers[1].downsample) is PatchMerging


def test_rates_reach_the_blocks_alone() -> None:
    network = build_network(model(SMALL_SWIN, drop_path=0.33, drop_out=0.2, att_drop_rate=0.1), 5)
    blocks = [block for stage in network.backbone.layers for block in stage.blocks]
    for number, block in enumerate(blocks):
        rates = [getattr(drop, "drop_prob", 0.0) for drop in (block.drop_path1, block.drop_path2)]
        assert rates == pytest.approx([0.03 * number] * 2)
        assert (block.attn.attn_drop.p, block.attn.proj_drop.p) == (0.1, 0.2)
        assert (block.mlp.drop1.p, block.mlp.drop2.p) == (0.2, 0.2)
    drops = [drop for drop in network.modules() if isinstance(drop, (nn.Dropout, DropPath)) and getattr(drop, "p", 1)]
    assert len(drops) == 12 * 4 + 11 * 2
    off = build_network(model(SMALL_SWIN, drop_path=0), 5)
    assert not any(isinstance(module, DropPath) or getattr(module, "p", 0) for module in off.modules())


@pytest.mark.integration
def test_a_modulated_swin_of_an_odd_size_has_a_form_in_onnx(tmp_path: Path) -> None:
    network = swin(50, 35, semantic_weight=0.2, pooling="gem")
    randomise_tables(network)
    for stage in network.backbone.layers:
        stage.blocks = stage.blocks[1:2]  # the shifted one is enough, and quicker to export
    path = tmp_path / "model.onnx"
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, 50, 35),), dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
    )
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    for count in (1, 4):
        batch = images(50, 35)[:count]
        (found,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(torch.from_numpy(found), network(batch), atol=1e-4, rtol=1e-4)


def test_softplus_of_the_first_scale_is_one() -> None:
    bias = swin().backbone.layers[1].downsample.semantic_scale.bias
    assert torch.equal(functional.softplus(bias), torch.ones_like(bias))
