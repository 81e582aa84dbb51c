import pytest
import torch
from timm.layers import DropPath

from reid_tune.config.diff import network_differences
from reid_tune.config.load import build_experiment
from reid_tune.errors import InputError
from reid_tune.modeling.backbone import build_backbone
from reid_tune.modeling.network import build_network

from .conftest import images, model

CONVOLUTIONAL = [
    "convnext_atto",
    "efficientnet_lite0",
    "mobilenetv4_conv_small",
    "regnetx_002",
    "resnest14d",
    "resnext26ts",
    "caformer_s18",
    "tiny_vit_5m_224",
]


@pytest.mark.parametrize("backbone", CONVOLUTIONAL)
def test_networks_of_timm_can_keep_the_size_of_the_last_map_and_drop_paths(backbone: str) -> None:
    sizes = {}
    with torch.device("meta"):
        for stride in (1, 2, None):
            network, _, _ = build_backbone(model(backbone, 64, 64, last_stride=stride, drop_path=0.2))
            maps = network.forward_features(torch.zeros(2, 3, 64, 64))
            sizes[stride] = tuple(maps.shape[2:])
    assert sizes == {1: (4, 4), 2: (2, 2), None: (2, 2)}
    rates = [layer.drop_prob for layer in network.modules() if isinstance(layer, DropPath)]
    assert max(rates) == pytest.approx(0.2, rel=0.2) and rates == sorted(rates)


def test_the_first_layer_of_stride_one_holds_that_of_stride_two() -> None:
    outputs = {}
    for stride in (1, 2):
        torch.manual_seed(0)
        network, _, _ = build_backbone(model("convnext_atto", last_stride=stride))
        network.stages[3].downsample.register_forward_hook(lambda *call, s=stride: outputs.update({s: call[2]}))
        with torch.inference_mode():
            network.eval()(images())
    torch.testing.assert_close(outputs[1][:, :, ::2, ::2], outputs[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "values", "message"),
    [
        ("hrnet_w18_small", {"last_stride": 1}, "^model.last_stride = 1: hrnet_w18_small has no last stage"),
        ("osnet_x0_25", {"last_stride": 1}, "^model.last_stride = 1: osnet_x0_25 has no last stage"),
        ("vgg11", {"drop_path": 0.2}, "'vgg11' does not support a value of the spec: .*drop_path_rate"),
    ],
)
def test_a_network_that_cannot_is_refused(backbone: str, values: dict[str, float], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        build_network(model(backbone, 64, 64, **values))


def test_a_default_is_the_value_that_it_stands_for() -> None:
    """A spec of the reference with `last_stride: 1` evaluates a checkpoint that was trained by default."""
    for backbone, stride, is_same in (("resnet18", 1, True), ("resnet18", 2, False), ("convnext_atto", 2, True)):
        plain, explicit = (
            build_experiment({}, {"model.backbone": backbone} | values, "test")
            for values in ({}, {"model.last_stride": stride})
        )
        assert (network_differences(plain, explicit) == []) is is_same
