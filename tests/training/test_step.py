from pathlib import Path

import pytest
import torch

from reid_tune.modeling.network import build_seeded_network
from reid_tune.optim.optimizer import make_optimizer
from reid_tune.training.state import create_or_resume
from reid_tune.training.step import TrainingStep, autocast

from .conftest import Build

IMAGES = torch.randn(8, 3, 32, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def make(build: Build, **values: object) -> tuple[TrainingStep, dict[str, torch.Tensor]]:
    experiment = build(train__optim__name="SGD", train__optim__momentum=0.0, **values)
    network = build_seeded_network(experiment.model, 2, seed=0)
    step = TrainingStep(network, make_optimizer(network, experiment.train.optim), experiment)
    return step, step(IMAGES, LABELS)


def test_the_loss_is_the_sum_of_its_parts(build: Build) -> None:
    _, parts = make(build)
    assert parts.keys() == {"loss", "loss/identity", "loss/triplet", "accuracy"}
    assert float(parts["loss"]) == pytest.approx(float(parts["loss/identity"] + parts["loss/triplet"]))
    assert not any(part.requires_grad for part in parts.values())


def test_steps_lower_the_loss(build: Build) -> None:
    step, first = make(build, train__optim__base_lr=0.01)
    for _ in range(5):
        last = step(IMAGES, LABELS)
    assert float(last["loss"]) < 0.8 * float(first["loss"])


def test_clipping_limits_the_whole_gradient(build: Build) -> None:
    def norm(step: TrainingStep) -> float:
        gradients = [p.grad for p in step.network.parameters() if p.grad is not None]
        return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())

    free, _ = make(build)
    clipped, _ = make(build, train__clip_grad_norm=0.5)
    assert norm(free) > 0.6
    assert norm(clipped) == pytest.approx(0.5, abs=1e-4)


def test_the_triplet_loss_alone_leaves_neck_and_classifier(build: Build) -> None:
    step, _ = make(build, dataset__sampler="triplet")
    assert step.network.classifier is not None and step.network.classifier.weight.grad is None
    assert step.network.neck.weight.grad is None
    assert next(step.network.backbone.parameters()).grad is not None


def test_bf16_is_the_arithmetic_of_the_backbone_alone(build: Build) -> None:
    exact, expected = make(build)
    step, parts = make(build, train__precision="bf16")
    assert float(parts["loss"]) == pytest.approx(float(expected["loss"]), rel=0.05)
    assert float(parts["loss"]) != float(expected["loss"])
    assert all(part.dtype == torch.float32 for part in parts.values())
    assert all(p.dtype == torch.float32 for p in step.network.parameters())
    with autocast("bf16", torch.device("cpu")):
        assert exact.network.features(IMAGES).dtype == torch.bfloat16
    with autocast("fp32", torch.device("cpu")):
        assert exact.network.features(IMAGES).dtype == torch.float32


def test_the_accuracy_is_the_classifiers_on_the_batch(build: Build) -> None:
    step, first = make(build, train__optim__base_lr=0.01)
    assert 0 <= float(first["accuracy"]) <= 1
    for _ in range(10):
        last = step(IMAGES, LABELS)
    assert float(last["accuracy"]) == 1
    assert "accuracy" not in make(build, dataset__sampler="triplet")[1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_centers_move_towards_their_features(build: Build, precision: str) -> None:
    step, parts = make(
        build,
        model__with_center_loss=True,
        model__metric_loss_type="triplet_center",
        train__optim__base_lr=1e-6,
        train__precision=precision,
    )
    assert parts.keys() >= {"loss/center", "loss/identity", "loss/triplet"}
    assert float(parts["loss"]) == pytest.approx(sum(float(v) for k, v in parts.items() if k.startswith("loss/")))
    losses = [float(step(IMAGES, LABELS)["loss/center"]) for _ in range(8)]
    assert losses[-1] < losses[3] < losses[0] < float(parts["loss/center"])
    assert step.center is not None and not any("center" in name for name in step.network.state_dict())


def test_half_precision_trains_with_a_scaled_loss(build: Build) -> None:
    """A scale that overflows is lowered and its step skipped; the next update is that of float32, up to rounding."""
    settings = {"train__optim__base_lr": 0.01, "train__clip_grad_norm": 1.0}
    exact, expected = make(build, **settings)
    step, parts = make(build, **settings, train__precision="fp16")
    assert float(parts["loss"]) == pytest.approx(float(expected["loss"]), rel=0.01)
    before = step.network.projection.weight.detach().clone()
    step.scaler.update(1e38)
    step(IMAGES, LABELS)
    assert torch.equal(step.network.projection.weight, before) and step.scaler.get_scale() < 1e38
    step.scaler.update(256.0)
    step.network.load_state_dict(exact.network.state_dict())
    step(IMAGES, LABELS), exact(IMAGES, LABELS)
    torch.testing.assert_close(step.network.projection.weight, exact.network.projection.weight, atol=1e-3, rtol=1e-2)
    assert not torch.equal(step.network.projection.weight, before)


def test_centers_step_alike_whatever_the_scale(build: Build) -> None:
    center = {"model__with_center_loss": True, "model__metric_loss_type": "triplet_center"}
    exact, _ = make(build, **center)
    half, _ = make(build, **center, train__precision="fp16")
    assert exact.center is not None and half.center is not None
    torch.testing.assert_close(half.center.centers, exact.center.centers, atol=1e-2, rtol=1e-2)


@pytest.mark.integration
def test_a_compiled_backbone_computes_the_same(build: Build) -> None:
    plain, expected = make(build)
    step, parts = make(build, train__compile=True)
    assert float(parts["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)
    assert step.network.state_dict().keys() == plain.network.state_dict().keys()
    for name, tensor in plain.network.state_dict().items():
        torch.testing.assert_close(step.network.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)


def test_weights_of_1x1_convolutions_have_the_strides_that_cudnn_gives_their_gradients(
    build: Build, tmp_path: Path
) -> None:
    """DistributedDataParallel's buckets follow the weights, and copy each gradient whose strides differ."""
    network = create_or_resume(build(model__backbone="resnet18"), tmp_path, torch.device("cpu"), None).network
    weights = [p for p in network.parameters() if p.dim() == 4 and p.shape[2:] == (1, 1)]
    assert len(weights) == 3
    for weight in weights:
        channels = weight.shape[1]
        assert weight.stride() == (channels, 1, channels, channels)


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("is_projected", [True, False])
def test_a_frozen_backbone_keeps_every_value_until_its_epoch(build: Build, chunks: int, is_projected: bool) -> None:
    """Without a projection the features themselves have no gradient."""
    values = {"train.optim.freeze_epochs": 2, "train.accumulate": chunks, "model.reduce_feat_dim": is_projected}
    experiment = build(train__optim__base_lr=0.1, train__optim__warmup_iters=0, **values)
    network = build_seeded_network(experiment.model, 2, seed=0)
    step = TrainingStep(network, make_optimizer(network, experiment.train.optim), experiment)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    for epoch in range(3):
        step.start_epoch(epoch)
        step(IMAGES, LABELS)
        changed = {name for name, value in network.state_dict().items() if not torch.equal(value, start[name])}
        is_frozen = not any(name.startswith("backbone.") for name in changed)
        assert is_frozen == (epoch < 2) and {"classifier.weight", "neck.running_mean"} <= changed
        assert network.training and network.backbone.training != is_frozen
    assert ("projection.weight" in changed) == is_projected
    assert {name for name in start if name.startswith("backbone.") and "running_mean" in name} <= changed


def test_a_backbone_that_was_frozen_then_learns_as_one_that_was_not(build: Build) -> None:
    """Without a rate the head stays as it is, so the second epoch equals a first one without freezing."""
    values = {"train__optim__name": "AdamW", "train__optim__base_lr": 1e-12, "train__optim__warmup_iters": 0}
    gradients = []
    for freeze_epochs in (0, 1):
        experiment = build(train__optim__freeze_epochs=freeze_epochs, **values)
        network = build_seeded_network(experiment.model, 2, seed=0)
        step = TrainingStep(network, make_optimizer(network, experiment.train.optim), experiment)
        for epoch in range(freeze_epochs + 1):
            step.start_epoch(epoch)
            step(IMAGES, LABELS)
        gradients.append([parameter.grad for parameter in network.backbone.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
