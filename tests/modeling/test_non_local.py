"""Non-local blocks against their definition, at the places and by the names of fast-reid's AGW."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment
from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet, build_seeded_network
from reid_tune.modeling.non_local import NonLocal
from reid_tune.tasks.common.open_model import open_network
from reid_tune.training.pretrained import load_pretrained

from .conftest import images, model


def non_local_by_pairs(block: NonLocal, x: Tensor) -> Tensor:
    """The block's output, from the sum over all pairs of positions (Wang et al., CVPR 2018, dot product)."""
    batch, _, height, width = x.shape
    g, theta, phi = (layer(x).reshape(batch, -1) for layer in (block.g, block.theta, block.phi))
    mixed = torch.zeros_like(g)
    for position in range(height * width):
        for other in range(height * width):
            mixed[:, position] += theta[:, position] * phi[:, other] * g[:, other] / (height * width)
    return x + block.W(mixed.reshape(batch, 1, height, width))


def lively(network: nn.Module) -> nn.Module:
    """The module in eval mode, its batch norms with weights and statistics of a trained one."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
    return network.eval()


def build(backbone: str, non_local: bool = True) -> ReIDNet:
    return build_seeded_network(model(backbone, non_local=non_local), 0, 1)


@torch.inference_mode()
def test_the_block_is_the_sum_over_all_pairs() -> None:
    block = lively(NonLocal(6))
    x = torch.randn(2, 6, 4, 3)
    torch.testing.assert_close(block(x), non_local_by_pairs(block, x))
    assert (block(x) - x).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("backbone", "counts"),
    [  # fast-reid's `nl_layers_per_stage`; a ResNet-18, which it leaves out, has a block after each of its blocks
        ("resnet50", (2, 3)),
        ("resnet_50", (2, 3)),
        ("resnet50_ibn_a", (2, 3)),
        ("resnet101", (2, 9)),
        ("resnet18", (2, 2)),
    ],
)
def test_names_and_shapes_are_those_of_fast_reids_files(backbone: str, counts: tuple[int, int]) -> None:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in build(backbone).backbone.state_dict().items()}
        plain = build(backbone, non_local=False).backbone.state_dict()
    expected = {}
    for stage, count in zip((2, 3), counts, strict=True):
        channels = 64 * 2 ** (stage - 1) * (1 if backbone == "resnet18" else 4)
        for number in range(count):
            name = f"NL_{stage}.{number}"
            for layer in ("g", "theta", "phi"):
                expected |= {f"{name}.{layer}.weight": (1, channels, 1, 1), f"{name}.{layer}.bias": (1,)}
            expected |= {f"{name}.W.0.weight": (channels, 1, 1, 1), f"{name}.W.0.bias": (channels,)}
            norm = ("weight", "bias", "running_mean", "running_var")
            expected |= {f"{name}.W.1.{part}": (channels,) for part in norm}
    added = {name: shape for name, shape in shapes.items() if name not in plain and "num_batches" not in name}
    assert added == expected


@torch.inference_mode()
def test_the_blocks_follow_the_last_blocks_of_two_stages() -> None:
    network = lively(build("resnet50")).backbone
    x = network.maxpool(network.act1(network.bn1(network.conv1(images()))))
    x = network.layer1(x)
    a, b, c, d = network.layer2
    x = network.NL_2[1](d(network.NL_2[0](c(b(a(x))))))
    a, b, c, d, e, f = network.layer3
    x = network.NL_3[2](f(network.NL_3[1](e(network.NL_3[0](d(c(b(a(x)))))))))
    torch.testing.assert_close(network(images()), network.layer4(x).mean((2, 3)))


@torch.inference_mode()
def test_a_plain_file_gives_the_plain_network_at_first(tmp_path: Path) -> None:
    plain = lively(timm.create_model("resnet18", num_classes=0))
    torch.save(plain.state_dict(), tmp_path / "a.pth")
    section = model("resnet18", non_local=True, last_stride=2, pretrained_model_path=str(tmp_path / "a.pth"))
    network = build_seeded_network(section, 3, 1).eval()
    loaded = load_pretrained(network, Experiment(model=section), [1, 2, 3])
    assert loaded is not None and loaded.unused == loaded.untrained == ()
    torch.testing.assert_close(network.backbone(images()), plain(images()))


def test_a_file_with_the_blocks_is_refused_for_a_plain_network(tmp_path: Path) -> None:
    weights = build("resnet18").state_dict()
    torch.save({"model": weights}, tmp_path / "agw.pth")  # as fast-reid writes it
    section = model("resnet18", pretrained_model_path=str(tmp_path / "agw.pth"))
    message = r"^model.non_local = false: .* \(backbone.NL_2.0.g.weight, ...\); set it to true.$"
    with pytest.raises(InputError, match=message):
        load_pretrained(build_seeded_network(section, 3, 1), Experiment(model=section), [1, 2, 3])
    with pytest.raises(InputError, match=message):
        open_network(tmp_path / "agw.pth", Experiment(model=section))


def test_all_its_tensors_are_trained() -> None:
    network = build("resnet18").train()
    for _ in range(2):  # at first only the norms that start at 0 have a gradient
        network(images()).square().sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad.sign()
    blocks = {name: parameter.grad for name, parameter in network.named_parameters() if ".NL_" in name}
    assert all(grad is not None and grad.abs().sum() > 0 for name, grad in blocks.items() if "W.0.bias" not in name)


@pytest.mark.parametrize("backbone", ["resnetv2_50", "inception_resnet_v2"])
def test_a_network_without_places_is_refused(backbone: str) -> None:
    with pytest.raises(InputError, match=f"^model.non_local = true: {backbone} has no places .*; set it to false"):
        build_seeded_network(model(backbone, 96, 96, non_local=True, last_stride=2), 0, 1)


def test_a_backbone_that_is_not_a_resnet_is_refused_before_any_training() -> None:
    with pytest.raises(InputError, match="model.non_local = True has no effect, because the backbone is not a ResNet"):
        build_experiment({}, {"model.backbone": "osnet_x0_25", "model.non_local": True}, "test")
