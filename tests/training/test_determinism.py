"""Kernels that a training chooses, and the choice of the process afterwards."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from reid_tune.config.train import Cudnn, Train
from reid_tune.losses.training_loss import TrainingLoss
from reid_tune.training.determinism import configure_kernels

from .conftest import Build
from .test_step import IMAGES, LABELS, make

cudnn = torch.backends.cudnn


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """Settings of a run on a GPU; PyTorch also keeps them without a GPU."""
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    yield torch.device("cuda", 0)
    assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == before, "the choice before is restored"


@pytest.mark.parametrize(("tf32", "products"), [(True, "high"), (False, "highest")])
def test_products_and_convolutions_have_one_precision(gpu: torch.device, tf32: bool, products: str) -> None:
    with configure_kernels(Train(tf32=tf32), gpu):
        assert torch.get_float32_matmul_precision() == products
        assert cudnn.allow_tf32 is tf32


def test_a_cpu_multiplies_in_true_float32() -> None:
    with configure_kernels(Train(tf32=True), torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"


def test_losses_and_their_gradients_are_in_true_float32(
    gpu: torch.device, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Precision in the forward and the backward pass of the losses, and in the backward pass of the backbone."""
    seen = []

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, values: Tensor, name: str) -> Tensor:
            ctx.name = name  # type: ignore[attr-defined]
            seen.append((name, "forward", torch.get_float32_matmul_precision()))
            return values.view_as(values)

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
            seen.append((ctx.name, "backward", torch.get_float32_matmul_precision()))  # type: ignore[attr-defined]
            return gradient, None

    step, _ = make(build)
    losses, features = TrainingLoss.__call__, step.network.features
    monkeypatch.setattr(TrainingLoss, "__call__", lambda self, f, *rest: losses(self, Noted.apply(f, "losses"), *rest))
    monkeypatch.setattr(step.module.backbone, "features", lambda images: Noted.apply(features(images), "backbone"))
    with configure_kernels(Train(tf32=True), gpu):
        step(IMAGES, LABELS)
    assert set(seen) == {
        ("losses", "forward", "highest"),
        ("losses", "backward", "highest"),
        ("backbone", "forward", "high"),
        ("backbone", "backward", "high"),
    }


@pytest.mark.parametrize(
    ("train", "steps", "benchmark"),
    [
        (Train(), None, True),
        (Train(), 500, True),
        (Train(), 499, False),
        (Train(cudnn=Cudnn(benchmark=False)), 500, False),
        (Train(deterministic=True), 500, False),
    ],
)
def test_cudnn_times_its_algorithms_where_that_pays(train: Train, steps: int | None, benchmark: bool) -> None:
    before = cudnn.benchmark
    with configure_kernels(train, torch.device("cuda", 0), steps):
        assert cudnn.benchmark is benchmark
        assert cudnn.deterministic is train.deterministic
    assert cudnn.benchmark is before
