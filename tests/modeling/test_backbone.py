import pytest
import torch
from torch import Tensor, nn

from reid_tune.errors import InputError
from reid_tune.modeling.network import build_network, build_seeded_network
from reid_tune.modeling.pooling import GeM

from ..helpers.small_networks import SMALL_SWIN
from .conftest import MOBILE, VIT, images, model


def gem_by_loops(maps: Tensor, exponent: float) -> Tensor:
    """Maps [batch, C, H, W] to [batch, C]."""
    batch, channels, height, width = maps.shape
    pooled = torch.empty(batch, channels)
    for image in range(batch):
        for channel in range(channels):
            values = maps[image, channel].flatten().tolist()
            total = sum(max(value, 1e-6) ** exponent for value in values)
            pooled[image, channel] = (total / (height * width)) ** (1 / exponent)
    return pooled


@pytest.mark.parametrize("exponent", [1.0, 3.0, 4.5])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_generalised_mean_is_the_formula(exponent: float, channels_last: bool) -> None:
    maps = torch.randn(2, 3, 5, 4)
    gem = GeM(channels_last)
    nn.init.constant_(gem.exponent, exponent)
    given = maps.permute(0, 2, 3, 1) if channels_last else maps
    torch.testing.assert_close(gem(given).detach(), gem_by_loops(maps, exponent))
    torch.testing.assert_close(gem(given.bfloat16()), gem(given.bfloat16().float()))


def test_the_exponent_is_learned_and_starts_at_three() -> None:
    gem = GeM(channels_last=False)
    assert gem.exponent.tolist() == [3.0]
    gem(torch.rand(2, 3, 5, 4)).sum().backward()
    assert gem.exponent.grad is not None and gem.exponent.grad.abs().item() > 1e-3


@pytest.mark.parametrize("backbone", ["resnet18", SMALL_SWIN, MOBILE, "swinv2_tiny_window8_256"])
def test_it_pools_the_last_map_before_the_projection(backbone: str) -> None:
    height, width = (64, 64) if "swinv2" in backbone else (64, 32)
    network = build_seeded_network(model(backbone, height, width, pooling="gem", feat_dim=16), 0, 1).eval()
    with torch.inference_mode():
        maps = network.backbone(images(height, width))
        if "swin" in backbone:
            torch.testing.assert_close(maps, network.backbone.forward_features(images(height, width)))
            maps = maps.permute(0, 3, 1, 2)
        pooled = gem_by_loops(maps, 3)
        assert isinstance(network.projection, nn.Linear) and network.projection.in_features == pooled.shape[1]
        features = network.features(images(height, width))
        torch.testing.assert_close(features, network.projection(pooled), atol=1e-4, rtol=1e-4)


def test_the_average_is_timms_own() -> None:
    network = build_seeded_network(model(), 0, 1).eval()
    assert isinstance(network.pooling, nn.Identity)
    with torch.inference_mode():
        expected = network.projection(network.backbone.forward_features(images()).mean((2, 3)))
        torch.testing.assert_close(network.features(images()), expected)


@pytest.mark.parametrize("backbone", [VIT, "deit_tiny_patch16_224"])
def test_tokens_have_no_map(backbone: str) -> None:
    with pytest.raises(
        InputError, match=f"^model.pooling = 'gem': {backbone} ends in tokens, not in a map; set model.pooling to avg"
    ):
        build_network(model(backbone, pooling="gem"))


def test_a_pooling_that_cannot_be_removed_is_explained() -> None:
    with pytest.raises(
        InputError, match="'deit_tiny_distilled_patch16_224' does not support .* with pooling gem: .*tokens"
    ):
        build_network(model("deit_tiny_distilled_patch16_224", pooling="gem"))
