"""ResNets with instance norms, against the networks and the weight files of their authors.

Names and shapes are those of `ibnnet/resnet_ibn.py` of github.com/XingangPan/IBN-Net, which wrote the published files.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.modeling.cost import network_cost
from reid_tune.modeling.ibn import IBN_RESNETS
from reid_tune.modeling.network import ReIDNet, build_network
from reid_tune.training.loaded_weights import LoadedWeights
from reid_tune.training.pretrained import load_pretrained

from .conftest import images, model

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def public_shapes(depth: int, variant: str) -> Shapes:
    """Names and shapes of a published file; variant a or b, or empty for torchvision's ResNet."""
    made: Shapes = {}

    def norm(name: str, channels: int, batch: bool = True) -> None:
        parts = ("weight", "bias", "running_mean", "running_var") if batch else ("weight", "bias")
        made.update({f"{name}.{part}": (channels,) for part in parts})
        if batch:
            made[f"{name}.num_batches_tracked"] = ()

    made["conv1.weight"] = (64, 3, 7, 7)
    norm("bn1", 64, variant != "b")
    channels = 64
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        width = 64 * 2 ** (stage - 1)
        output = width * (4 if depth >= 50 else 1)
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            kernels = [(width, channels, 1), (width, width, 3), (output, width, 1)]
            if depth < 50:
                kernels = [(width, channels, 3), (width, width, 3)]
            for number, (rows, columns, side) in enumerate(kernels, start=1):
                made[f"{name}.conv{number}.weight"] = (rows, columns, side, side)
                if number == 1 and variant == "a" and stage < 4:
                    norm(f"{name}.bn1.IN", width // 2, batch=False)
                    norm(f"{name}.bn1.BN", width - width // 2)
                else:
                    norm(f"{name}.bn{number}", rows)
            if variant == "b" and stage < 3 and block == blocks - 1:
                norm(f"{name}.IN", output, batch=False)
            if block == 0 and (stage > 1 or channels != output):
                made[f"{name}.downsample.0.weight"] = (output, channels, 1, 1)
                norm(f"{name}.downsample.1", output)
            channels = output
    return made | {"fc.weight": (1000, channels), "fc.bias": (1000,)}


def public_weights(depth: int, variant: str) -> Weights:
    generator = torch.Generator().manual_seed(depth)
    made = {}
    for name, shape in public_shapes(depth, variant).items():
        value = torch.randn(shape, generator=generator)
        made[name] = value / value[0].numel() ** 0.5 if len(shape) > 1 else value.abs() * 0.2 + 0.5
    return made


def features(weights: Weights, x: Tensor) -> Tensor:
    """Features [batch, C] by the definition: the mean of the last map, whose stride is 2."""

    def norm(name: str, x: Tensor) -> Tensor:
        if f"{name}.IN.weight" in weights:
            half = x.shape[1] // 2
            return torch.cat([norm(f"{name}.IN", x[:, :half]), norm(f"{name}.BN", x[:, half:])], 1)
        if f"{name}.running_mean" in weights:
            mean, variance = (weights[f"{name}.running_{part}"][:, None, None] for part in ("mean", "var"))
        else:
            mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
        scale, shift = (weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def conv(name: str, x: Tensor, stride: int) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    x = functional.max_pool2d(norm("bn1", conv("conv1", x, 2)).relu(), 3, 2, 1)
    for name in dict.fromkeys(key.rpartition(".conv")[0] for key in weights if key.startswith("layer")):
        if not name or "downsample" in name:
            continue
        stride = 2 if name.endswith(".0") and name != "layer1.0" else 1
        last = 3 if f"{name}.conv3.weight" in weights else 2
        branch = x
        for number in range(1, last + 1):
            strided = number == last - 1  # the convolution of 3 x 3; the first one of a basic block
            branch = norm(f"{name}.bn{number}", conv(f"{name}.conv{number}", branch, stride if strided else 1))
            branch = branch.relu() if number < last else branch
        has_downsample = f"{name}.downsample.0.weight" in weights
        shortcut = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride)) if has_downsample else x
        x = branch + shortcut
        x = (norm(f"{name}.IN", x) if f"{name}.IN.weight" in weights else x).relu()
    return x.mean((2, 3))


def load(path: Path, backbone: str) -> tuple[ReIDNet, LoadedWeights]:
    section = model(backbone, last_stride=2, pretrained_model_path=str(path))
    network = build_network(section, 3).eval()
    loaded = load_pretrained(network, Experiment(model=section), [1, 2, 3])
    assert loaded is not None
    return network, loaded


@pytest.mark.parametrize("backbone", IBN_RESNETS)
def test_names_and_shapes_are_those_of_the_published_files(backbone: str) -> None:
    depth, variant = int(backbone[6:].partition("_")[0]), backbone[-1]
    with torch.device("meta"):
        state = build_network(model(backbone)).backbone.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    public = public_shapes(depth, variant)
    del public["fc.weight"], public["fc.bias"]
    assert shapes == public


@pytest.mark.parametrize("backbone", ["resnet18_ibn_a", "resnet18_ibn_b", "resnet50_ibn_a", "resnet50_ibn_b"])
@torch.inference_mode()
def test_a_published_file_computes_what_it_did_there(tmp_path: Path, backbone: str) -> None:
    weights = public_weights(int(backbone[6:8]), backbone[-1])
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, tmp_path / "a.pth")
    network, loaded = load(tmp_path / "a.pth", backbone)
    assert loaded.unused == ("backbone.fc.weight", "backbone.fc.bias") and loaded.untrained == ()
    expected = features(weights, images())
    assert expected.std() > 0.01
    torch.testing.assert_close(network.backbone(images()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize(
    ("describe", "parts"),
    [
        (lambda ibn: (ibn, ""), "lacks its instance norms"),
        (lambda ibn: ("", ibn), ".IN."),
        (lambda ibn: (ibn, "ab".replace(ibn, "")), "lacks its instance norms and has"),
    ],
    ids=["plain file", "plain network", "other variant"],
)
def test_the_file_of_another_resnet_is_refused(
    tmp_path: Path, variant: str, describe: Callable[[str], tuple[str, str]], parts: str
) -> None:
    of_network, of_file = (f"resnet18_ibn_{kind}" if kind else "resnet18" for kind in describe(variant))
    torch.save(public_weights(18, of_file[13:]), tmp_path / "a.pth")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "a.pth", of_network)
    message = str(caught.value)
    assert parts in message and f"it fits {of_file} (" in message and "set model.backbone" in message
    assert "\n" not in message


def test_the_last_stride_and_the_projection_are_a_resnets() -> None:
    network = build_network(model("resnet18_ibn_a", pooling="gem", feat_dim=16)).eval()
    with torch.inference_mode():
        assert network.backbone(images()).shape == (4, 512, 4, 2)
    assert network.projection.bias is not None


@pytest.mark.parametrize("channels", [1, 3])
def test_instance_norms_add_no_parameters_to_a_split_norm(channels: int) -> None:
    plain, split = (network_cost(model(name, input_channels=channels)) for name in ("resnet50", "resnet50_ibn_a"))
    assert split == plain


def test_a_map_of_one_pixel_is_explained() -> None:
    with pytest.raises(InputError, match="'resnet18_ibn_a' does not support images of 16 x 8"):
        build_network(model("resnet18_ibn_a", 16, 8))
