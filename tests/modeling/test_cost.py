"""Costs against published numbers and against layers counted one by one."""

import pytest
import torch
from torch import Tensor, nn

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.modeling.cost import model_cost
from reid_tune.modeling.network import ReIDNet, build_network

from .conftest import MOBILE, SWIN, VIT, model


def experiment(backbone: str = "resnet18", height: int = 64, width: int = 32, **values: object) -> Experiment:
    return Experiment(model=model(backbone, height, width, **values))


def bare(backbone: str, size: int = 224) -> Experiment:
    """The backbone alone, as its paper has it but for the classifier."""
    return experiment(backbone, size, size, last_stride=2, reduce_feat_dim=False, neck="", neck_feat="before")


def counted(network: ReIDNet, image: Tensor) -> int:
    """Operations of convolutions and linear layers, from the shapes that they meet."""
    total = 0

    def convolution(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        height, width = layer.kernel_size
        total += 2 * output.numel() * height * width * layer.in_channels // layer.groups

    def linear(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Linear)
        total += 2 * output.numel() * layer.in_features

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(convolution if isinstance(layer, nn.Conv2d) else linear)
    with torch.no_grad():
        network.eval()(image)
    return total


@pytest.mark.parametrize(
    ("backbone", "parameters", "multiply_adds"),
    [  # He et al., CVPR 2016; Dosovitskiy et al., ICLR 2021; Liu et al., ICCV 2021; less the 1,000 classes
        ("resnet18", 11.69e6 - 513e3, 1.82e9 - 0.5e6),
        ("resnet50", 25.56e6 - 2.049e6, 4.09e9 - 2.0e6),
        ("vit_base_patch16_224", 86.57e6 - 769e3, 17.58e9 - 0.8e6),
        ("swin_tiny_patch4_window7_224", 28.29e6 - 769e3, 4.5e9 - 0.8e6),
    ],
)
def test_published_counts(backbone: str, parameters: float, multiply_adds: float) -> None:
    cost = model_cost(bare(backbone))
    assert cost["parameters"] == pytest.approx(parameters, rel=1e-3)
    assert cost["gflops"] == pytest.approx(2 * multiply_adds / 1e9, rel=6e-3)


@pytest.mark.parametrize("backbone", ["resnet18", MOBILE])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_layers_counted_one_by_one(backbone: str, channels: int) -> None:
    spec = experiment(backbone, input_channels=channels, feat_dim=48)
    network = build_network(spec.model)
    cost = model_cost(spec)
    assert cost["gflops"] * 1e9 == pytest.approx(counted(network, torch.zeros(1, channels, 64, 32)))
    assert cost["parameters"] == sum(weights.numel() for weights in network.parameters())
    assert cost["embedding_dim"] == 48


@pytest.mark.parametrize("backbone", [VIT, SWIN])
def test_attention_comes_on_top_of_the_layers(backbone: str) -> None:
    spec = experiment(backbone, 64, 64)
    network = build_network(spec.model)
    layers = counted(network, torch.zeros(1, 3, 64, 64))
    if backbone == VIT:  # softmax(Q K') V: 12 layers, 16 patches and the class token, dimension 192
        attention = 12 * 2 * (2 * 17 * 17 * 192)
    else:  # whole windows of 49 tokens
        maps = zip(network.backbone.layers, (16, 8, 4, 2), strict=True)  # type: ignore[arg-type]
        attention = sum(
            2 * (2 * 49 * 49 * block.dim) * (-(-side // 7)) ** 2 for stage, side in maps for block in stage.blocks
        )
    assert model_cost(spec)["gflops"] * 1e9 == pytest.approx(layers + attention)


@pytest.mark.parametrize(
    ("backbone", "millions", "mega_multiply_adds"),
    [  # Zhou et al., ICCV 2019, table 5, and TPAMI 2021: images of 256 x 128
        ("osnet_x1_0", 2.2, 978.9),
        ("osnet_x0_75", 1.3, 571.8),
        ("osnet_x0_5", 0.6, 272.9),
        ("osnet_x0_25", 0.2, 82.3),
        ("osnet_ain_x1_0", 2.2, 978.9),
    ],
)
def test_published_counts_of_osnet(backbone: str, millions: float, mega_multiply_adds: float) -> None:
    cost = model_cost(experiment(backbone, 256, 128, reduce_feat_dim=False, neck="", neck_feat="before"))
    assert cost["parameters"] / 1e6 == pytest.approx(millions, abs=0.051)
    assert cost["gflops"] == pytest.approx(2 * mega_multiply_adds / 1e3, rel=6e-3)
    assert cost["embedding_dim"] == 512


def test_what_the_embedding_needs_is_counted_and_nothing_else() -> None:
    cost = model_cost(experiment(feat_dim=64))
    assert model_cost(experiment(feat_dim=64, with_flip_feature=True))["gflops"] == pytest.approx(2 * cost["gflops"])
    assert model_cost(experiment(feat_dim=64, neck="", neck_feat="before"))["parameters"] == cost["parameters"] - 2 * 64
    assert model_cost(experiment(feat_dim=32))["parameters"] == cost["parameters"] - 32 * (512 + 1) - 2 * 32


def test_global_state_is_unchanged() -> None:
    state, device = torch.get_rng_state(), torch.get_default_device()
    first = model_cost(experiment(VIT))
    assert torch.equal(torch.get_rng_state(), state) and torch.get_default_device() == device
    first["gflops"] = 0.0
    assert model_cost(experiment(VIT))["gflops"] > 0


def test_families_that_follow_gradients_are_counted() -> None:
    assert model_cost(experiment("cait_xxs24_224"))["gflops"] > 0


def test_a_network_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="not a timm model"):
        model_cost(experiment("resnet_5000"))
