"""No operation of a step makes the host wait for a GPU: proved by their log on the meta device.

The meta device has shapes and no values: whatever reads a value fails there. What is left is a copy from ordinary
memory, which the log finds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reid_tune.config.augmentation import Affine, Blur, ErasingShape, RandAugment, RandomPatch
from reid_tune.config.dataset import ColorJitter
from reid_tune.data.augment import augmentation as augment
from reid_tune.data.augment import color_jitter as jitter
from reid_tune.data.augment import gpu as on_device
from reid_tune.data.augment import rand_augment, transforms
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.image_spec import ImageSpec
from reid_tune.modeling.network import build_seeded_network
from reid_tune.optim import optimizer as optimizers
from reid_tune.optim.optimizer import make_optimizer
from reid_tune.training import step as step_module
from reid_tune.training.step import TrainingStep

from ..helpers import training_worker as worker

META = torch.device("meta")
LABELS = np.arange(4).repeat(4)


class CopiesFromTheHost(TorchDispatchMode):
    """Records the operations that take a tensor of the CPU and return one of the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.copies: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        self.operations += 1
        if "cpu" in _devices([arguments, options]) and "meta" in _devices([result]):
            self.copies.append(str(function))
        return result


def _devices(values: Any) -> set[str]:
    """Return the kinds of device of the tensors with dimensions in nested values; scalars are passed by value."""
    if isinstance(values, Tensor):
        return {values.device.type} if values.dim() else set()
    if isinstance(values, dict):
        values = values.values()
    return set().union(*map(_devices, values)) if isinstance(values, list | tuple | type({}.values())) else set()


@contextmanager
def meta_uploads() -> Iterator[None]:
    """Uploads return a tensor of the meta device at once: on a GPU they read page-locked memory, without a wait."""

    def to_device(values: np.ndarray | Tensor, _: torch.device) -> Tensor:
        tensor = torch.as_tensor(values)
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)

    with pytest.MonkeyPatch.context() as patch:
        for module in (jitter, on_device, rand_augment, transforms):
            patch.setattr(module, "to_device", to_device)
        patch.setattr(augment, "cpu", on_device)  # the meta device goes the way of a GPU
        yield


def augmented(erasing: Any) -> Callable[[], Tensor]:
    """Return a function that augments a batch with all transforms."""
    spec = ImageSpec(32, 16, "bilinear", 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    augmentation = Augmentation(
        spec,
        padding=2,
        erasing=erasing,
        jitter=ColorJitter(prob=0.5),
        shape=ErasingShape(count=2),
        patch=RandomPatch(prob=0.5),
        affine=Affine(prob=0.5),
        rand_augment=RandAugment(prob=1.0, num_ops=14),
        grey=0.5,
        local_grey=0.5,
        blur=Blur(prob=0.5),
    )
    decisions = augmentation.draw(0, 0, 0, 16)
    images = torch.empty(16 + len(decisions.patch_images), 32, 16, 3, dtype=torch.uint8, device=META)
    return lambda: augmentation.apply(images, decisions)


@pytest.mark.parametrize("erasing", ["mean", "noise"])
def test_the_augmentation_of_a_batch_copies_nothing_from_the_host(erasing: str) -> None:
    with meta_uploads():
        apply = augmented(erasing)
        apply()  # The first call brings the constants to the device.
        with CopiesFromTheHost() as log:
            apply()
    assert log.operations > 10 and log.copies == []


def test_the_log_finds_a_copy() -> None:
    """Normalisation whose constants are made on the host in every step."""
    with CopiesFromTheHost() as log:
        torch.empty(4, device=META).mul_(torch.tensor([1.0, 2.0, 3.0, 4.0]).to(META))
    assert log.copies == ["aten._to_copy.default"]


@pytest.mark.parametrize("losses", worker.LOSSES)
@pytest.mark.parametrize(
    "values",
    [{}, {"train.clip_grad_norm": 1.0}, {"train.optim.name": "Adam"}],
    ids=["plain", "clipping", "Adam"],
)
def test_a_step_copies_and_reads_nothing(losses: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Fused optimizers and autocast have no form for the meta device.
    monkeypatch.setattr(optimizers, "_FUSED", ())
    monkeypatch.setattr(step_module, "autocast", lambda *_: nullcontext())
    experiment = worker.experiment("unused", **worker.LOSSES[losses], **values)
    network = build_seeded_network(experiment.model, worker.IDENTITIES, seed=0).train().to(META)
    step = TrainingStep(network, make_optimizer(network, experiment.train.optim), experiment)
    images = torch.empty(16, 3, 32, 16, device=META)
    labels = torch.empty(16, dtype=torch.int64, device=META)
    step(images, labels)  # The optimizer makes its state.
    with CopiesFromTheHost() as log:
        parts = step(images, labels)
    assert log.operations > 100 and log.copies == []
    assert parts["loss"].is_meta
