from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from reid_tune.checkpoints.weight_search import find_weights, network_keys
from reid_tune.config.model import Model
from reid_tune.modeling.network import ReIDNet, build_network

Weights = dict[str, Tensor]
NECK = 24


@pytest.fixture(scope="module")
def network() -> ReIDNet:
    torch.manual_seed(0)
    return build_network(Model(backbone="test_resnet", feat_dim=NECK, input_height=32, input_width=16))


@pytest.fixture(scope="module")
def backbone(network: ReIDNet) -> Weights:
    return dict(network.backbone.state_dict())


def under(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}


FC = {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
HEAD = {"head.weight": torch.ones(7), "center_criterion.centers": torch.ones(2)}

# Where files keep a network's weights: a function from the weights to the content, the place, part of a remark.
PLACES: dict[str, tuple[Callable[[Weights], Any], str, str]] = {
    "timm": (lambda w: w, "", ""),
    "torchvision": (lambda w: w | FC, "", ""),
    "lightning": (lambda w: {"state_dict": under("model.", w), "epoch": 3}, "'state_dict', prefix 'model.'", ""),
    "net": (lambda w: {"net": w, "acc": 0.9, "epoch": 3}, "'net'", ""),
    "net_dict": (lambda w: {"net_dict": OrderedDict(w)}, "'net_dict'", ""),
    "weights": (lambda w: {"weights": w}, "'weights'", ""),
    "params": (lambda w: {"params": {"encoder": w}, "opt": {}}, "'params.encoder'", ""),
    "tuple": (lambda w: {"state": ([w], 7)}, "'state.0.0'", ""),
    "deep": (lambda w: {"a": {"b": {"c": under("x.y.", w)}}}, "'a.b.c', prefix 'x.y.'", ""),
    "dataparallel": (lambda w: {"state_dict": under("module.", w)}, "'state_dict', prefix 'module.'", ""),
    "compiled": (lambda w: under("_orig_mod.", w), "", ""),
    "compiled module": (lambda w: under("module._orig_mod.", w), "prefix 'module._orig_mod.'", ""),
    "wrapped layers": (lambda w: {n.replace("layer1.0", "layer1._wrapped.0"): t for n, t in w.items()}, "", ""),
    "sequential": (lambda w: under("1.", w) | {"0.mean": torch.ones(3)}, "prefix '1.'", ""),
    "trunk": (lambda w: under("trunk.", w) | HEAD, "prefix 'trunk.'", ""),
    "base": (lambda w: {"model": under("base.", w)}, "'model', prefix 'base.'", ""),
    "twice": (lambda w: under("backbone.module.", w), "prefix 'backbone.module.'", ""),
    "moco": (
        lambda w: {
            "arch": "resnet",
            "state_dict": under("module.encoder_k.", zeros(w)) | under("module.encoder_q.", w),
        },
        "'state_dict', prefix 'module.encoder_q.'",
        "prefix 'module.encoder_k.' fits as well",
    ),
    "moco v3": (
        lambda w: under("module.momentum_encoder.", zeros(w)) | under("module.base_encoder.", w),
        "prefix 'module.base_encoder.'",
        "the trained weights",
    ),
    "dino": (
        lambda w: {"student": under("module.backbone.", zeros(w)), "teacher": under("backbone.", w) | HEAD},
        "'teacher', prefix 'backbone.'",
        "the averaged weights",
    ),
    "student alone": (lambda w: under("student.backbone.", w), "prefix 'student.backbone.'", ""),
    "timm ema": (lambda w: {"state_dict": zeros(w), "state_dict_ema": w}, "'state_dict_ema'", "'state_dict' fits as"),
    "two peers": (
        lambda w: {"model_1": w, "model_2": zeros(w)},
        "'model_1'",
        "warning: 'model_2' fits equally well, and 'model_1' comes first",
    ),
    "the same twice": (lambda w: {"model": w, "best": dict(w)}, "'model'", ""),
    "clip": (lambda w: under("image_encoder.", w) | under("text_encoder.", HEAD), "prefix 'image_encoder.'", ""),
    "with optimizer": (
        lambda w: {"model": w, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}},
        "'model'",
        "",
    ),
}


@pytest.mark.parametrize(("make", "location", "remark"), PLACES.values(), ids=PLACES)
def test_a_backbone_is_found_wherever_a_file_keeps_it(
    network: ReIDNet, backbone: Weights, make: Callable[[Weights], Any], location: str, remark: str
) -> None:
    match = find_weights(make(backbone), network_keys(network))
    assert match.location == location or (location == "" and match.location == "prefix '_orig_mod.'")
    assert match.fitting == match.named == len(backbone)
    assert all(torch.equal(match.tensors[f"backbone.{name}"], tensor) for name, tensor in backbone.items())
    assert bool(match.remarks) == bool(remark) and remark in "".join(match.remarks)


ONE = torch.ones(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: under("model.", w) | {"model": ONE},
        lambda w: {"model": ONE} | under("model.", w),
        lambda w: {"model": ONE} | under("model.backbone.", w) | {"model.backbone": ONE},
        lambda w: under(".", w) | {"": ONE},
        lambda w: {"": ONE, ".": w},
        lambda w: {"a": {"b": ONE} | under("b.", w), "a.b": ONE},
        lambda w: {"a": {"b.c": w, "b": ONE}},
        lambda w: {"_": ONE} | w,
        lambda w: {"": ONE} | w,
    ],
)
def test_a_tensor_may_have_the_name_of_the_prefix(
    network: ReIDNet, backbone: Weights, make: Callable[[Weights], Any]
) -> None:
    match = find_weights(make(backbone), network_keys(network))
    assert match.fitting == len(backbone)
    assert all(torch.equal(match.tensors[f"backbone.{name}"], tensor) for name, tensor in backbone.items())


def test_the_numbered_layers_of_a_sequential_are_found() -> None:
    keys = network_keys(timm.create_model("resnet18", num_classes=0))
    numbers = {name: str(number) for number, name in enumerate(keys.children)}
    content = {}
    for name, shape in keys.shapes.items():
        child, _, suffix = name.partition(".")
        content[f"backbone.{numbers[child]}.{suffix}"] = torch.empty(shape, device="meta")
    match = find_weights(content | {"head.weight": torch.ones(1)}, keys)
    assert match.fitting == len(keys.shapes) and match.location == "prefix 'backbone.'"


def norm() -> Weights:
    return {name: torch.full_like(tensor, 3) for name, tensor in torch.nn.BatchNorm1d(NECK).state_dict().items()}


def mlp(prefix: str, number: int) -> Weights:
    """Return a linear layer, a norm with a number, and another linear layer, as a projector of SimCLR or BYOL has."""
    linear = {"weight": torch.ones(NECK, NECK), "bias": torch.ones(NECK)}
    layers = (f"{prefix}{number - 1}.", linear), (f"{prefix}{number}.", norm()), (f"{prefix}{number + 2}.", linear)
    return {name: tensor for place, weights in layers for name, tensor in under(place, weights).items()}


def rename(weights: Weights, *names: str) -> Weights:
    for old, new in zip(names[::2], names[1::2], strict=True):
        weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    return weights


KERNEL = torch.randn(NECK, 96, 1, 1)
# Heads next to a backbone: prefix of the backbone, names and tensors of the heads, expected names.
HEADS: dict[str, tuple[str, Weights, set[str]]] = {
    "TAO": ("model.base.", under("model.bottleneck.", norm()), {"neck.running_var"}),
    "SOLIDER-REID": ("base.", {"fcneck.weight": torch.ones(2)}, {"projection.weight"}),
    "TransReID": ("base.", under("bottleneck.", norm()) | under("bottleneck_1.", norm()), {"neck.weight"}),
    "fast-reid": ("backbone.", under("heads.bottleneck.0.", norm()), {"neck.running_mean", "neck.bias"}),
    "another name": ("module.cnn.", under("module.feat_bn.", norm()), {"neck.running_mean"}),
    "bare": ("", under("bnneck.", norm()), {"neck.running_mean"}),
    "torchreid": ("", {"classifier.weight": torch.ones(2)}, {"classifier.weight"}),
    "a projection": ("model.base.", {"model.base.feature.weight": KERNEL}, {"projection.weight"}),
    "reid-tune": ("backbone.", {"pooling.exponent": torch.ones(1)} | under("neck.", norm()), {"pooling.exponent"}),
    "two norms": ("base.", under("a.", norm()) | under("b.", norm()), set()),
    "another dimension": ("base.", under("a.", torch.nn.BatchNorm1d(NECK + 1).state_dict()), set()),
    "inside fc": ("", under("fc.1.", norm()), set()),
    "numbered heads": ("backbone.", under("heads.0.bnneck.", norm()), {"neck.running_mean"}),
    "after a convolution": (
        "backbone.",
        {"heads.bottleneck.0.weight": KERNEL} | under("heads.bottleneck.1.", norm()),
        {"neck.running_mean"},
    ),
    "before the classifier": (
        "backbone.",
        under("bn.", norm()) | {"fc.weight": torch.ones(NECK, NECK)},
        {"neck.running_mean"},
    ),
    "with a projector": ("backbone.", under("feat_bn.", norm()) | mlp("projector.", 1), {"neck.running_mean"}),
    "a projection head": ("backbone.", mlp("projection_head.layers.", 1), set()),
    "a projector next to the backbone": ("backbone.", mlp("", 1), set()),
    "a predictor": ("online.backbone.", mlp("online.predictor.", 1), set()),
    "another module": ("backbone.", mlp("pose.net.", 3), set()),
    "a norm of another module": ("backbone.", under("pose.bn.", norm()), set()),
    "a norm of another dictionary": ("model.backbone.", under("discriminator.1.", norm()), set()),
    "a projector called neck": (
        "backbone.",
        rename(mlp("neck.", 1), "neck.0", "neck.fc0", "neck.1", "neck.bn0"),
        set(),
    ),
    "a projector in a neck": ("backbone.", mlp("neck.mlp.", 1), set()),
    "two encoders": (
        "query.cnn.",
        under("key.bottleneck.", zeros(norm())) | under("query.bottleneck.", norm()),
        {"neck.bias"},
    ),
}


@pytest.mark.parametrize(("prefix", "heads", "expected"), HEADS.values(), ids=HEADS)
def test_heads_next_to_the_backbone_are_found(
    network: ReIDNet, backbone: Weights, prefix: str, heads: Weights, expected: set[str]
) -> None:
    match = find_weights({"state_dict": under(prefix, backbone) | heads}, network_keys(network))
    found_heads = {"neck.running_mean", "projection.weight", "classifier.weight"} & set(match.tensors)
    assert expected <= set(match.tensors) and (expected or not found_heads)
    assert len(match.tensors) == len(backbone) + len(heads)
    for name in expected & {"neck.weight", "neck.bias"}:
        assert torch.equal(match.tensors[name], norm()["weight"])
    if "model.base.feature.weight" in heads:
        assert torch.equal(match.tensors["projection.weight"], KERNEL[:, :, 0, 0])


@pytest.mark.parametrize(
    ("name", "remark"),
    [
        ("heads.bottleneck.0.", "'heads.bottleneck.0'"),
        ("feat_bn.", "'feat_bn'"),
        ("wrapped._orig_mod.bnneck.", "'wrapped._orig_mod.bnneck'"),
        ("a\x1b[31m\nneck.", "'a\\x1b[31m\\nneck'"),
        ("neck.", ""),
        ("bottleneck.", ""),
        ("pose.bn.", ""),
        ("projector.1.", ""),
    ],
)
def test_a_neck_that_is_recognised_by_its_dimension_is_named(
    network: ReIDNet, backbone: Weights, name: str, remark: str
) -> None:
    match = find_weights(under("backbone.", backbone) | under(name, norm()), network_keys(network))
    text = f"the neck is {remark}, the only batch norm of its dimension there"
    assert match.remarks == ((text,) if remark else ())


def test_places_in_a_file_are_printable(network: ReIDNet, backbone: Weights) -> None:
    content = {"a\x1b[2J": under("b\n.", backbone), "c\r": zeros(backbone)}
    match = find_weights(content, network_keys(network))
    assert all(text.isprintable() for text in (match.location, *match.remarks)) and "a\\x1b[2J" in match.location


def test_tensors_of_another_network_fill_no_gaps(network: ReIDNet, backbone: Weights) -> None:
    incomplete = dict(list(backbone.items())[1:])
    content = under("teacher.backbone.", incomplete) | under("backbone.", zeros(backbone))
    match = find_weights(content, network_keys(network))
    missing = next(iter(backbone))
    assert match.location == "prefix 'teacher.backbone.'" and f"backbone.{missing}" not in match.tensors
    assert f"other.backbone.{missing}" in match.tensors


def test_names_of_a_file_without_the_networks_tensors_are_kept(network: ReIDNet) -> None:
    match = find_weights({"a": {"b": torch.ones(1)}, "epoch": 3}, network_keys(network))
    assert match.tensors == {"a.b": torch.ones(1)} and match.fitting == match.named == 0


def test_a_file_that_contains_itself_is_read_to_an_end(network: ReIDNet, backbone: Weights) -> None:
    content: dict[str, Any] = dict(backbone)
    content["model"] = content
    assert find_weights(content, network_keys(network)).fitting == len(backbone)


def test_gradients_are_left_out(network: ReIDNet) -> None:
    content = {"w": {"conv1.0.weight": torch.nn.Parameter(torch.ones(2))}}
    assert not find_weights(content, network_keys(network)).tensors["backbone.conv1.0.weight"].requires_grad


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "swin_t"])
def test_every_tensor_of_torchvisions_networks_is_known_unless_it_differs(name: str) -> None:
    """torchvision's Swins have other names, so that they are refused."""
    timm_name = {"resnet50": "resnet50", "vit_b_16": "vit_base_patch16_224", "swin_t": "swin_tiny_patch4_window7_224"}
    with torch.device("meta"):
        keys = network_keys(timm.create_model(timm_name[name], num_classes=0))
        content = torchvision.models.get_model(name).state_dict()
    match = find_weights({"model": content}, keys)
    assert match.fitting == (2 if name == "swin_t" else len(keys.shapes)) and match.remarks == ()
