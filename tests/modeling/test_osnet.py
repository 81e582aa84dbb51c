"""OSNet against its definition, and its names and shapes against torchreid's weight files.

Names and shapes are those of `torchreid/models/osnet.py` and `osnet_ain.py` of github.com/KaiyangZhou/deep-person-reid.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.modeling.network import build_network
from reid_tune.modeling.osnet import OSNETS
from reid_tune.tasks.common.open_model import open_network
from reid_tune.training.pretrained import load_pretrained

from .conftest import images, model

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
# Blocks with an instance norm in the branch (AIN) or after the sum (IBN), by stage and block.
INSTANCE_NORMS = {"": [], "ain": ["2.0", "2.1", "3.1", "4.0"], "ibn": ["2.0", "2.1"]}


def parts_of(backbone: str) -> tuple[str, float]:
    """Variant and width of a name."""
    _, *variant, width = backbone.replace("_x", " x").replace("osnet", "osnet ").split()
    return "".join(variant).strip("_"), float(width[1:].replace("_", "."))


def public_shapes(backbone: str) -> Shapes:
    """Names and shapes of a published file."""
    variant, width = parts_of(backbone)
    channels = [int(width * size) for size in (64, 256, 384, 512)]
    made: Shapes = {}

    def conv(name: str, rows: int, columns: int, size: int = 1, bias: bool = False) -> None:
        made[f"{name}.weight"] = (rows, columns, size, size)
        if bias:
            made[f"{name}.bias"] = (rows,)

    def norm(name: str, size: int, batch: bool = True) -> None:
        parts = ("weight", "bias", "running_mean", "running_var") if batch else ("weight", "bias")
        made.update({f"{name}.{part}": (size,) for part in parts})
        if batch:
            made[f"{name}.num_batches_tracked"] = ()

    conv("conv1.conv", channels[0], 3, 7)
    norm("conv1.bn", channels[0], batch=not variant)
    for stage in (2, 3, 4):
        inner, outer = channels[stage - 2 : stage]
        middle = outer // 4
        for block in (0, 1):
            name = f"conv{stage}.{block}"
            conv(f"{name}.conv1.conv", middle, inner if block == 0 else outer)
            norm(f"{name}.conv1.bn", middle)
            for stream in range(4):
                for layer in range(stream + 1):
                    if variant == "ain":
                        light = f"{name}.conv2.{stream}.layers.{layer}"
                    else:
                        light = f"{name}.conv2{'abcd'[stream]}" + (f".{layer}" if stream else "")
                    conv(f"{light}.conv1", middle, middle)
                    conv(f"{light}.conv2", middle, 1, 3)
                    norm(f"{light}.bn", middle)
            conv(f"{name}.gate.fc1", middle // 16, middle, bias=True)
            conv(f"{name}.gate.fc2", middle, middle // 16, bias=True)
            conv(f"{name}.conv3.conv", outer, middle)
            has_instance_norm = f"{stage}.{block}" in INSTANCE_NORMS[variant]
            if not (variant == "ain" and has_instance_norm):
                norm(f"{name}.conv3.bn", outer)
            if has_instance_norm:
                norm(f"{name}.IN", outer, batch=False)
            if block == 0:
                conv(f"{name}.downsample.conv", outer, inner)
                norm(f"{name}.downsample.bn", outer)
        if stage < 4:
            transition = f"pool{stage}.0" if variant == "ain" else f"conv{stage}.2.0"
            conv(f"{transition}.conv", outer, outer)
            norm(f"{transition}.bn", outer)
    conv("conv5.conv", channels[3], channels[3])
    norm("conv5.bn", channels[3])
    made |= {"fc.0.weight": (512, channels[3]), "fc.0.bias": (512,)}
    norm("fc.1", 512)
    return made | {"classifier.weight": (751, 512), "classifier.bias": (751,)}


def public_weights(backbone: str) -> Weights:
    generator = torch.Generator().manual_seed(3)
    made = {}
    for name, shape in public_shapes(backbone).items():
        value = torch.randn(shape, generator=generator)
        made[name] = value * (2 / value[0].numel()) ** 0.5 if len(shape) > 1 else value.abs() * 0.2 + 0.5
        if name.endswith(("bias", "running_mean")):
            made[name] = value * 0.2
    return made


def features(weights: Weights, x: Tensor, variant: str) -> Tensor:
    """Features [batch, 512] by the definition of Zhou et al. (2019, 2021)."""

    def norm(name: str, x: Tensor) -> Tensor:
        if f"{name}.running_mean" in weights:
            mean, variance = (weights[f"{name}.running_{part}"][:, None, None] for part in ("mean", "var"))
        else:
            mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
        scale, shift = (weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def conv(name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        bias = weights.get(f"{name}.bias")
        return functional.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2, groups=groups)

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return norm(f"{name}.bn", conv(f"{name}.conv", x, stride))

    def light(name: str, x: Tensor) -> Tensor:
        x = conv(f"{name}.conv1", x)
        return norm(f"{name}.bn", conv(f"{name}.conv2", x, groups=x.shape[1])).relu()

    def block(name: str, x: Tensor) -> Tensor:
        middle = unit(f"{name}.conv1", x).relu()
        total = torch.zeros_like(middle)
        for stream in range(4):
            scale = middle
            for layer in range(stream + 1):
                if variant == "ain":
                    scale = light(f"{name}.conv2.{stream}.layers.{layer}", scale)
                else:
                    scale = light(f"{name}.conv2{'abcd'[stream]}" + (f".{layer}" if stream else ""), scale)
            gate = conv(f"{name}.gate.fc1", scale.mean((2, 3))[:, :, None, None]).relu()
            total = total + scale * conv(f"{name}.gate.fc2", gate).sigmoid()
        if variant == "ain" and f"{name}.IN.weight" in weights:
            branch = norm(f"{name}.IN", conv(f"{name}.conv3.conv", total))
        else:
            branch = unit(f"{name}.conv3", total)
        x = branch + (unit(f"{name}.downsample", x) if f"{name}.downsample.conv.weight" in weights else x)
        if variant == "ibn" and f"{name}.IN.weight" in weights:
            x = norm(f"{name}.IN", x)
        return x.relu()

    x = functional.max_pool2d(unit("conv1", x, 2).relu(), 3, 2, 1)
    for stage in (2, 3, 4):
        x = block(f"conv{stage}.1", block(f"conv{stage}.0", x))
        if stage < 4:
            x = unit(f"pool{stage}.0" if variant == "ain" else f"conv{stage}.2.0", x).relu()
            x = functional.avg_pool2d(x, 2)
    x = unit("conv5", x).relu().mean((2, 3)) @ weights["fc.0.weight"].T + weights["fc.0.bias"]
    return norm("fc.1", x[:, :, None, None])[:, :, 0, 0].relu()


@pytest.mark.parametrize("backbone", OSNETS)
def test_names_and_shapes_are_those_of_the_published_files(backbone: str) -> None:
    with torch.device("meta"):
        state = build_network(model(backbone)).backbone.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    public = public_shapes(backbone)
    del public["classifier.weight"], public["classifier.bias"]
    assert shapes == public


@pytest.mark.parametrize("backbone", ["osnet_x0_25", "osnet_x1_0", "osnet_ain_x1_0", "osnet_ibn_x1_0"])
@torch.inference_mode()
def test_the_file_of_a_tracker_gives_the_embedding_that_it_gives_there(tmp_path: Path, backbone: str) -> None:
    weights = public_weights(backbone)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, tmp_path / "a.pth.tar")
    section = model(backbone, neck="", neck_feat="before", reduce_feat_dim=False)
    network, _ = open_network(tmp_path / "a.pth.tar", Experiment(model=section))
    expected = features(weights, images(), parts_of(backbone)[0])
    assert network.dimension == 512 and expected.std() > 0.01
    torch.testing.assert_close(network(images()), expected, rtol=1e-4, atol=1e-4)


def test_a_training_starts_from_a_published_file(tmp_path: Path) -> None:
    torch.save(public_weights("osnet_x0_25"), tmp_path / "osnet_x0_25_imagenet.pth")
    section = model("osnet_x0_25", pretrained_model_path=str(tmp_path / "osnet_x0_25_imagenet.pth"), feat_dim=512)
    loaded = load_pretrained(build_network(section, 3), Experiment(model=section), [1, 2, 3])
    assert loaded is not None and loaded.untrained == ()
    assert set(loaded.unused) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("of_file", "of_network"), [("osnet_ibn_x1_0", "osnet_x1_0"), ("osnet_x1_0", "osnet_ain_x1_0")]
)
def test_the_file_of_another_variant_is_refused(tmp_path: Path, of_file: str, of_network: str) -> None:
    torch.save(public_weights(of_file), tmp_path / "a.pth")
    section = model(of_network, pretrained_model_path=str(tmp_path / "a.pth"))
    with pytest.raises(InputError, match=f"of another network; it fits {of_file} .*: set model.backbone"):
        load_pretrained(build_network(section, 3), Experiment(model=section), [1, 2, 3])


def test_generalised_mean_pools_the_last_map() -> None:
    network = build_network(model("osnet_x0_25", pooling="gem", input_channels=1)).eval()
    with torch.inference_mode():
        assert network.backbone(images(channels=1)).shape == (4, 128, 4, 2)
        assert network(images(channels=1)).shape == (4, 256)


def test_a_large_image_gives_larger_maps_at_the_same_stride() -> None:
    network = build_network(model("osnet_ain_x0_25", 128, 64, pooling="gem")).eval()
    with torch.inference_mode():
        assert network.backbone(images(128, 64)).shape == (4, 128, 8, 4)
