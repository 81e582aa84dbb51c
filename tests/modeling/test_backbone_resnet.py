import pytest
import timm
import torch
from torch import Tensor, nn

from reid_tune.errors import InputError
from reid_tune.modeling.backbone import build_backbone

from .conftest import images, model

FAMILIES = ["resnet18", "resnet_50", "resnet18d", "resnetblur18", "resnetv2_18", "nf_resnet26", "gcresnet50t"]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_last_stride_sets_the_size_of_the_map(backbone: str) -> None:
    sizes = {}
    for stride in (1, 2):
        network, _, _ = build_backbone(model(backbone, last_stride=stride))
        with torch.inference_mode():
            sizes[stride] = tuple(network.eval().forward_features(images()).shape[2:])
    assert sizes == {1: (4, 2), 2: (2, 1)}


def test_a_last_stride_of_two_is_timms_network() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours, _, _ = build_backbone(model("resnet50", last_stride=2))
        torch.manual_seed(0)
        theirs = timm.create_model("resnet50", num_classes=0)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images()), theirs.eval()(images()))


@pytest.mark.parametrize(("backbone", "negative"), [("resnet_50", True), ("resnet50", False)])
def test_the_references_resnet_has_no_relu_after_its_first_batch_norm(backbone: str, negative: bool) -> None:
    network, _, own = build_backbone(model(backbone))
    seen: list[Tensor] = []
    network.maxpool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(images())
    assert own == 2048 and len(seen) == 1
    assert bool((seen[0] < 0).any()) is negative


@pytest.mark.parametrize("backbone", ["resnet_50", "resnetv2_50"])
def test_the_first_block_of_stride_one_holds_that_of_stride_two(backbone: str) -> None:
    outputs = {}
    for stride in (1, 2):
        torch.manual_seed(0)
        network, _, _ = build_backbone(model(backbone, last_stride=stride))
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.5, 1.5)  # residual branches begin with 0
        stage = network.stages[3].blocks if backbone == "resnetv2_50" else network.layer4
        stage[0].register_forward_hook(lambda _, inputs, output, stride=stride: outputs.update({stride: output}))
        with torch.inference_mode():
            network.eval()(images())
    torch.testing.assert_close(outputs[1][:, :, ::2, ::2], outputs[2], atol=1e-4, rtol=1e-4)


def test_names_without_resnet_keep_their_last_stride() -> None:
    network, _, _ = build_backbone(model("resnext26ts", pooling="gem"))
    with torch.inference_mode():
        assert network.eval()(images()).shape[2:] == (2, 1)


def test_an_unsupported_last_stride_is_refused() -> None:
    with pytest.raises(InputError, match="^model.last_stride = 1: inception_resnet_v2 .*; set model.last_stride to 2"):
        build_backbone(model("inception_resnet_v2", 96, 96))
