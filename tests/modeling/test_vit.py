import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from reid_tune.errors import InputError
from reid_tune.modeling.network import build_network, build_seeded_network

from .conftest import VIT, images, model


@pytest.mark.parametrize(
    ("height", "width", "stride", "grid"),
    [
        (64, 32, (16, 16), (4, 2)),
        (64, 32, (12, 12), (5, 2)),
        (64, 32, (8, 16), (7, 2)),
        (64, 40, (16, 12), (4, 3)),
        (50, 33, (11, 12), (4, 2)),
        (256, 128, (12, 12), (21, 10)),
    ],
)
def test_overlapping_patches_and_their_position_table(
    height: int, width: int, stride: tuple[int, int], grid: tuple[int, int]
) -> None:
    backbone = build_seeded_network(model(VIT, height, width, stride_size=stride), 0, 1).eval().backbone
    pixels = images(height, width)[:1]
    tokens = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            top, left = row * stride[0], column * stride[1]
            patch = pixels[0, :, top : top + 16, left : left + 16]
            tokens.append((backbone.patch_embed.proj.weight * patch).sum((1, 2, 3)) + backbone.patch_embed.proj.bias)
    assert top + 16 <= height < top + 16 + stride[0] and left + 16 <= width < left + 16 + stride[1]
    assert backbone.patch_embed.grid_size == grid and backbone.pos_embed.shape == (1, 1 + len(tokens), 192)
    assert 0.01 < backbone.pos_embed.std() < 0.03
    with torch.inference_mode():
        torch.testing.assert_close(backbone.patch_embed(pixels)[0], torch.stack(tokens), atol=1e-4, rtol=1e-4)
        assert backbone(pixels).shape == (1, 192)


def test_the_patches_own_stride_is_timms_network() -> None:
    torch.manual_seed(0)
    ours = build_network(model(VIT)).backbone.eval()
    torch.manual_seed(0)
    theirs = timm.create_model(VIT, num_classes=0, img_size=(64, 32)).eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(images()), theirs(images()))


@pytest.mark.parametrize(
    ("backbone", "before"), [("deit_tiny_distilled_patch16_224", 2), ("deit3_small_patch16_224", 0)]
)
def test_tokens_before_the_patches_keep_their_rows(backbone: str, before: int) -> None:
    network = build_network(model(backbone, stride_size=(12, 12))).eval()
    assert network.backbone.pos_embed.shape[1] == before + 5 * 2
    with torch.inference_mode():
        assert network(images()).isfinite().all()


def test_a_stride_above_the_patch_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"stride_size = \[16, 17\] leaves gaps .* of vit_tiny.*: set it to \[16, 16\] or less"
    ):
        build_network(model(VIT, stride_size=(16, 17)))


def test_patches_of_another_kind_keep_their_stride() -> None:
    backbone = "vit_tiny_r_s16_p8_224"
    with pytest.raises(InputError, match=rf"model.stride_size = \[8, 8\] is not supported by {backbone}: remove it"):
        build_network(model(backbone, stride_size=(8, 8)))
    with torch.inference_mode():
        assert build_network(model(backbone)).eval()(images()).shape == (4, 256)


def test_an_image_below_the_patch_is_refused() -> None:
    with pytest.raises(InputError, match=r"does not support images of 8 x 32 \(height x width\)"):
        build_network(model(VIT, 8, 32, stride_size=(4, 4)))


def test_rates_reach_the_blocks_and_the_positions() -> None:
    network = build_network(model(VIT, drop_path=0.33, drop_out=0.2, att_drop_rate=0.1), 5)
    assert network.backbone.pos_drop.p == 0.2
    for number, block in enumerate(network.backbone.blocks):
        rates = [getattr(drop, "drop_prob", 0.0) for drop in (block.drop_path1, block.drop_path2)]
        assert rates == pytest.approx([0.03 * number] * 2)
        assert (block.attn.attn_drop.p, block.attn.proj_drop.p) == (0.1, 0.2)
        assert (block.mlp.drop1.p, block.mlp.drop2.p) == (0.2, 0.2)
    drops = [drop for drop in network.modules() if isinstance(drop, (nn.Dropout, DropPath)) and getattr(drop, "p", 1)]
    assert len(drops) == 1 + 12 * 4 + 11 * 2


def test_a_rate_that_a_transformer_lacks_is_refused() -> None:
    backbone = "vit_relpos_small_patch16_224"
    with torch.device("meta"):
        build_network(model(backbone))
        with pytest.raises(InputError, match=f"'{backbone}' does not support a value of the spec: .*pos_drop_rate"):
            build_network(model(backbone, drop_out=0.1))


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_100"])
def test_other_networks_get_no_rates(backbone: str) -> None:
    network = build_network(model(backbone, drop_out=0.5, att_drop_rate=0.5), 5)
    assert not any(isinstance(module, DropPath) or getattr(module, "p", 0) for module in network.modules())
