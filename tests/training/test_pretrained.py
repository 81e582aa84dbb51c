import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet, build_seeded_network
from reid_tune.training.loaded_weights import LoadedWeights
from reid_tune.training.pretrained import load_pretrained

IDENTITIES = [3, 5, 8]
Build = Callable[..., Experiment]
Weights = dict[str, Tensor]
_RESNET = timm.create_model("resnet18").state_dict()


def load(experiment: Experiment, identities: list[int] = IDENTITIES) -> tuple[ReIDNet, LoadedWeights]:
    network = build_seeded_network(experiment.model, len(identities), seed=7)
    loaded = load_pretrained(network, experiment, identities)
    assert loaded is not None
    return network.eval(), loaded


def images(height: int = 64, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def lively(module: torch.nn.Module) -> Weights:
    """Return the module's weights, with batch-norm statistics as after a training."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.running_mean, std=0.1)
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module.state_dict()


@pytest.fixture
def build_on(build: Build) -> Build:
    def make(path: Path, backbone: str = "resnet18", choice: str = "imagenet", **values: Any) -> Experiment:
        return build(
            model__backbone=backbone, model__pretrained_model_path=str(path), model__pretrain_choice=choice, **values
        )

    return make


@torch.inference_mode()
def test_torchvisions_resnet_computes_what_timms_does_with_its_weights(tmp_path: Path, build_on: Build) -> None:
    weights = lively(torchvision.models.resnet18())
    path = tmp_path / "resnet18.pth"
    torch.save(weights, path)
    network, loaded = load(build_on(path, model__last_stride=2))
    timm_network = timm.create_model("resnet18", num_classes=0)
    timm_network.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("fc.")})
    torch.testing.assert_close(network.backbone(images()), timm_network.eval()(images()))
    assert len(loaded.loaded) == loaded.backbone == len(timm_network.state_dict())
    assert loaded.unused == ("backbone.fc.weight", "backbone.fc.bias") and loaded.untrained == loaded.resized == ()


def test_the_report_names_the_file_its_digest_and_what_became_of_the_tensors(tmp_path: Path, build_on: Build) -> None:
    weights = {f"w{number}": torch.ones(1) for number in range(6)} | timm.create_model("resnet18").state_dict()
    del weights["bn1.weight"], weights["bn1.num_batches_tracked"]
    torch.save(weights, tmp_path / "a.pth")
    _, loaded = load(build_on(tmp_path / "a.pth"))
    digest = hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    assert str(loaded).splitlines() == [
        f"pretrained weights: {tmp_path / 'a.pth'} (sha256 {digest})",
        "  loaded 118 of the backbone's 120 tensors; 8 of the file are left, 2 of them of a classifier",
        "  not used: backbone.w0, backbone.w1, backbone.w2, backbone.w3 and 4 more",
        "  warning: absent, so untrained: backbone.bn1.weight; to load them too, give a complete file of this backbone",
    ]


@pytest.mark.parametrize(
    ("trained", "backbone", "fills"), [("resnet18", "resnet26", 97), ("resnet34", "resnet18", 120)]
)
def test_the_file_of_another_network_is_refused(
    tmp_path: Path, build_on: Build, trained: str, backbone: str, fills: int
) -> None:
    torch.save(timm.create_model(trained).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=f"it fills {fills} of .*: it is of another network"):
        load(build_on(tmp_path / "a.pth", backbone))


@pytest.mark.parametrize(
    ("removed", "is_refused"),
    [
        ("layer4.", True),  # 90 of 120 tensors, 75 of the 100 that the network needs
        ("layer3.", True),
        ("layer2.1.", False),  # 90 of the 100
        ("layer4.1.conv", False),
        ("layer1.0.bn", False),
        ("num_batches_tracked", False),
        ("running_", True),
        ("bias", True),
        ("bn1.num_batches_tracked", False),
        ("fc.", False),
    ],
)
@pytest.mark.parametrize("counters", [True, False])
def test_a_file_has_nine_tenths_of_the_tensors_that_a_network_needs(
    tmp_path: Path, build_on: Build, removed: str, is_refused: bool, counters: bool
) -> None:
    weights = {name: tensor for name, tensor in _RESNET.items() if removed not in name}
    torch.save({n: t for n, t in weights.items() if counters or "num_batches" not in n}, tmp_path / "a.pth")
    if is_refused:
        assert "it is of another network" in refusal(build_on(tmp_path / "a.pth"))
    else:
        load(build_on(tmp_path / "a.pth"))


def test_names_of_a_file_are_printable(tmp_path: Path, build_on: Build) -> None:
    weights = {f"a\x1b[2J.{name}": tensor for name, tensor in _RESNET.items()}
    torch.save({"x\r": weights | {"b\n": torch.ones(1)}}, tmp_path / "a.pth")
    report = str(load(build_on(tmp_path / "a.pth"))[1])
    assert len(report.splitlines()) == 3 and all(line.isprintable() for line in report.splitlines())


def test_timms_safetensors_are_the_backbone(tmp_path: Path, build_on: Build) -> None:
    timm_network = timm.create_model("resnet18")
    save_file(timm_network.state_dict(), tmp_path / "model.safetensors")
    network, loaded = load(build_on(tmp_path / "model.safetensors"))
    state = network.backbone.state_dict()
    assert all(torch.equal(tensor, timm_network.state_dict()[name]) for name, tensor in state.items())
    assert len(loaded.loaded) == len(state)


def test_without_a_path_nothing_is_loaded(build: Build) -> None:
    network = build_seeded_network(build().model, 3, seed=7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for experiment in (build(), build(model__pretrain_choice=""), build(model__pretrained_model_path="")):
        assert load_pretrained(network, experiment, IDENTITIES) is None
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def moco(weights: Weights) -> Any:
    copies = {f"module.encoder_k.{name}": torch.zeros_like(tensor) for name, tensor in weights.items()}
    encoder = {f"module.encoder_q.{name}": tensor for name, tensor in weights.items()}
    return {"arch": "resnet18", "state_dict": copies | encoder | {"module.queue": torch.randn(8, 4)}}


@pytest.mark.parametrize(
    ("wrap", "lines"),
    [
        (lambda weights: {"net": weights, "acc": 0.9}, ["120 tensors from 'net'; 2 of the file are left, 2 of them"]),
        (
            moco,
            [
                "120 tensors from 'state_dict', prefix 'module.encoder_q.'; 125 of the file are left, 4 of them",
                "  'state_dict', prefix 'module.encoder_k.' fits as well; 'state_dict', prefix 'module.encoder_q.' is "
                "taken: the trained weights, not a copy of them",
            ],
        ),
        (
            lambda weights: {"state_dict": weights, "state_dict_ema": {n: 2 * t for n, t in weights.items()}},
            ["from 'state_dict_ema'; 2", "  'state_dict' fits as well; 'state_dict_ema' is taken: the averaged"],
        ),
        (
            lambda weights: {"a": weights, "b": {n: 2 * t for n, t in weights.items()}},
            ["from 'a'; 2", "  warning: 'b' fits equally well, and 'a' comes first in the file: to start"],
        ),
    ],
)
def test_the_report_names_wrapper_prefix_and_alternatives(
    tmp_path: Path, build_on: Build, wrap: Callable[[Weights], Any], lines: list[str]
) -> None:
    torch.save(wrap(timm.create_model("resnet18").state_dict()), tmp_path / "a.pth")
    _, loaded = load(build_on(tmp_path / "a.pth"))
    report = str(loaded).splitlines()
    assert all(part in line for part, line in zip(lines, report[1:], strict=False)), report


def refusal(experiment: Experiment) -> str:
    with pytest.raises(InputError) as caught:
        load(experiment)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (
            lambda: timm.create_model("resnet50").state_dict(),
            ["it fits resnet50 (318 of 318 tensors): set model.backbone, or"],
        ),
        (
            lambda: {"net": {f"cnn.{n}": t for n, t in timm.create_model("resnet34").state_dict().items()}},
            ["it fits resnet34 (216 of 216 tensors, 'net', prefix 'cnn.'): set"],
        ),
        (
            lambda: {"model": timm.create_model("vit_tiny_patch16_224").state_dict()},
            [
                "its keys are model, and its 152 tensors begin with model.cls_token (1x1x192)",
                "vit_tiny_patch16_224 (150",
            ],
        ),
        (
            lambda: {f"encoder.{name}": torch.ones(3) for name in "abcd"},
            [
                "nothing in it fits model.backbone = 'resnet18'",
                "the network's tensors are backbone.conv1.weight, backbone.bn1.weight, backbone.bn1.bias",
                "its 4 tensors begin with encoder.a (3), encoder.b (3), encoder.c (3)",
                "give a file of that network",
            ],
        ),
        (lambda: {"epoch": 3, "a\x1bb": 1}, ["its keys are epoch, a\\x1bb, and it has no tensors"]),
        (dict, ["it has no tensors"]),
        (
            lambda: {"net": timm.create_model("resnet18", stem_width=32, stem_type="deep").state_dict()},
            ["backbone.conv1.0.weight"],
        ),
        (
            lambda: {n: t[..., :1] if t.ndim == 4 else t[:1] if t.ndim else t for n, t in _RESNET.items()},
            ["of unequal shape: backbone.conv1.weight (64x3x7x1 in the file, 64x3x7x7 in the network)"],
        ),
    ],
    ids=["larger", "wrapped", "vit", "unknown", "numbers", "empty", "deep stem", "other shapes"],
)
def test_a_file_of_another_network_is_refused_with_its_content_and_what_it_fits(
    tmp_path: Path, build_on: Build, make: Callable[[], Any], parts: list[str]
) -> None:
    torch.save(make(), tmp_path / "a.pth")
    message = refusal(build_on(tmp_path / "a.pth"))
    assert [part for part in parts if part not in message] == [], message


def test_shapes_of_heads_that_do_not_fit_are_reported(tmp_path: Path, build_on: Build) -> None:
    reference_file(tmp_path / "a.pth")
    _, loaded = load(build_on(tmp_path / "a.pth", choice="self", model__feat_dim=16))
    assert "projection.weight (32x512 in the file, 16x512 in the network)" in str(loaded)


def test_a_missing_file_is_named(tmp_path: Path, build_on: Build) -> None:
    assert "does not exist or cannot be read" in refusal(build_on(tmp_path / "none.pth"))


def reference_file(path: Path, prefix: str = "model.") -> tuple[torch.nn.Module, Weights]:
    """Write a checkpoint as TAO's training does, of a ResNet with a projection to 32 channels before pooling."""
    backbone, neck = timm.create_model("resnet18", num_classes=0, global_pool=""), torch.nn.BatchNorm1d(32)
    heads = {f"bottleneck.{name}": tensor for name, tensor in lively(neck).items()}
    heads |= {"base.feature.weight": torch.randn(32, 512, 1, 1) / 20, "base.feature.bias": torch.randn(32)}
    heads |= {"classifier.weight": torch.randn(3, 32)}
    state = {f"base.{name}": tensor for name, tensor in lively(backbone).items()} | heads
    config = OmegaConf.create({"train": {"optim": {"lr_steps": [40, 70]}}, "encryption_key": "tlt"})
    content = {
        "epoch": 4,
        "state_dict": {f"{prefix}{name}": tensor for name, tensor in state.items()},
        "lr_schedulers": [{"milestones": config.train.optim.lr_steps, "gamma": 0.1}],
        "hyper_parameters": config,
    }
    torch.save(content, path)
    return backbone.eval(), heads


@torch.inference_mode()
def test_a_whole_network_of_the_reference_computes_what_it_did_there(tmp_path: Path, build_on: Build) -> None:
    backbone, heads = reference_file(tmp_path / "reid_model_latest.pth")
    experiment = build_on(tmp_path / "reid_model_latest.pth", choice="self", model__last_stride=2, model__feat_dim=32)
    network, loaded = load(experiment)
    projected = functional.conv2d(backbone(images()), heads["base.feature.weight"], heads["base.feature.bias"])
    neck = {name.removeprefix("bottleneck."): tensor for name, tensor in heads.items() if "bottleneck" in name}
    normed = (projected.mean((2, 3)) - neck["running_mean"]) / (neck["running_var"] + 1e-5).sqrt()
    torch.testing.assert_close(network(images()), normed * neck["weight"] + neck["bias"], rtol=1e-4, atol=1e-4)
    assert loaded.unused == ("classifier.weight",) and loaded.untrained == ()
    assert "and 7 others" in str(loaded)


def test_imagenet_takes_the_backbone_only(tmp_path: Path, build_on: Build) -> None:
    reference_file(tmp_path / "a.pth")
    experiment = build_on(tmp_path / "a.pth", model__feat_dim=32)
    fresh = build_seeded_network(experiment.model, 3, seed=7).state_dict()
    network, loaded = load(experiment)
    for name, tensor in network.state_dict().items():
        if not name.startswith("backbone."):
            assert torch.equal(tensor, fresh[name]), name
    assert {name.partition(".")[0] for name in loaded.unused} == {"neck", "projection", "classifier"}


@pytest.mark.parametrize(("backbone", "is_loaded"), [("swin_tiny_patch4_window7_224", True), ("resnet18", False)])
def test_without_a_choice_only_the_backbone_of_a_swin_is_loaded(
    tmp_path: Path, build_on: Build, backbone: str, is_loaded: bool
) -> None:
    experiment = build_on(tmp_path / "a.pth", backbone, "")
    network = build_seeded_network(experiment.model, 3, seed=1)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    loaded = load_pretrained(network, experiment, IDENTITIES)
    assert (loaded is not None) == is_loaded
    if loaded:
        assert loaded.loaded and all(name.startswith("backbone.") for name in loaded.loaded)


def our_file(path: Path, build_on: Build, key: str | None = None) -> Path:
    model = build_seeded_network(build_on(path, "test_resnet").model, len(IDENTITIES), seed=1).state_dict()
    save_checkpoint(path, Checkpoint({}, 1, IDENTITIES, [], model, {}), key)
    return path


@pytest.mark.parametrize("identities", [[3, 5, 8], [3, 8, 5], [3, 5, 9], [3, 5]])
def test_our_classifier_is_taken_where_the_identities_are_the_same(
    tmp_path: Path, build_on: Build, identities: list[int]
) -> None:
    experiment = build_on(our_file(tmp_path / "model_epoch_000.pth", build_on), "test_resnet", "self")
    checkpoint_weights = load_checkpoint(tmp_path / "model_epoch_000.pth").model
    network, loaded = load(experiment, identities)
    same = identities == IDENTITIES
    for name, tensor in network.state_dict().items():
        if same or not name.startswith("classifier."):
            assert torch.equal(tensor, checkpoint_weights[name]), name
    assert loaded.unused == (() if same else ("classifier.weight",)) and loaded.untrained == ()


def test_an_encrypted_checkpoint_needs_its_key(tmp_path: Path, build_on: Build, monkeypatch: Any) -> None:
    path = our_file(tmp_path / "a.pth", build_on, "open sesame")
    monkeypatch.delenv("REID_TUNE_ENCRYPTION_KEY", raising=False)
    with pytest.raises(InputError, match="is encrypted"):
        load(build_on(path, "test_resnet"))
    monkeypatch.setenv("REID_TUNE_ENCRYPTION_KEY", "open sesame")
    network, loaded = load(build_on(path, "test_resnet", "self"))
    checkpoint_weights = load_checkpoint(path, "open sesame").model
    assert len(loaded.loaded) == len(checkpoint_weights)
    assert all(torch.equal(tensor, checkpoint_weights[name]) for name, tensor in network.state_dict().items())


def test_the_ratio_of_a_vits_images_counts_for_self_only(tmp_path: Path, build_on: Build) -> None:
    # Its 4 x 2 patches are a grid of ratio 2, and none of ratio 1.
    timm_network = timm.create_model("vit_tiny_patch16_224", img_size=(64, 32))
    torch.save(timm_network.state_dict(), tmp_path / "a.pth")
    sizes = {"model__input_height": 48, "model__input_width": 32}
    _, loaded = load(build_on(tmp_path / "a.pth", "vit_tiny_patch16_224", "self", **sizes))
    assert loaded.resized == ("backbone.pos_embed",) and "resized: backbone.pos_embed" in str(loaded)
    with pytest.raises(InputError, match="pretrain_hw_ratio = 1"):
        load(build_on(tmp_path / "a.pth", "vit_tiny_patch16_224", "imagenet", **sizes))
