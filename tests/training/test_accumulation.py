"""Losses and gradients with `train.accumulate` are those of the whole batch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reid_tune.errors import InputError
from reid_tune.modeling.network import ReIDNet, build_seeded_network
from reid_tune.optim.optimizer import make_optimizer
from reid_tune.training.loop import train
from reid_tune.training.step import TrainingStep

from ..helpers import training_worker as worker
from .conftest import Build, Recorder


def one_step(network: ReIDNet, losses: str, images: Tensor, labels: Tensor, **values: Any) -> dict[str, Any]:
    """Return the parts of the loss, the gradients and the state after one step of a copy of the network."""
    experiment = worker.experiment("unused", **worker.LOSSES[losses], **values)
    network = copy.deepcopy(network)
    step = TrainingStep(network, make_optimizer(network, experiment.train.optim), experiment)
    parts = step(images, labels)
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"parts": parts, "gradients": gradients, "state": network.state_dict(), "center": step.center}


def network_of(backbone: str = "test_resnet", **values: Any) -> ReIDNet:
    model = worker.experiment("unused", **{"model.backbone": backbone}, **values).model
    return build_seeded_network(model, worker.IDENTITIES, seed=5).train()


def assert_equal_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Compare to 1e-6 of the largest gradient: some gradients, such as those before a batch norm, cancel out."""
    assert one.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    for name, gradient in one.items():
        assert float((gradient - other[name]).abs().max()) <= 1e-6 * largest, name


@pytest.mark.parametrize("losses", worker.LOSSES)
@pytest.mark.parametrize("chunks", [2, 8])
def test_losses_and_gradients_are_those_of_the_whole_batch(losses: str, chunks: int) -> None:
    """The backbone is in float64, so its features are the same float32 numbers for any size of a chunk."""
    network = network_of()
    network.backbone.eval().double()  # Batch norm in training mode sees a chunk.
    network.projection.double()
    images, labels = worker.batch()
    whole = one_step(network, losses, images.double(), labels)
    chunked = one_step(network, losses, images.double(), labels, **{"train.accumulate": chunks})
    assert all(torch.equal(chunked["parts"][name], part) for name, part in whole["parts"].items())
    assert_equal_gradients(whole["gradients"], chunked["gradients"])
    for name in ("neck.running_mean", "neck.running_var", "neck.num_batches_tracked"):
        assert torch.equal(chunked["state"][name], whole["state"][name]), "the neck sees the whole batch, once"
    if whole["center"] is not None:
        assert torch.equal(chunked["center"].centers, whole["center"].centers)


@pytest.mark.parametrize("backbone", ["test_resnet", "vit_tiny_patch16_224"])
def test_chunks_equal_separate_graphs_in_memory(backbone: str) -> None:
    """Separate graphs keep the activations of all chunks; batch norm and dropout are those of the chunks."""
    size = {"model.input_width": 32} if backbone.startswith("vit") else {}
    network = network_of(backbone, **{"model.drop_path": 0.3, "model.drop_out": 0.2} if size else {}, **size)
    images, labels = worker.batch()
    images = torch.cat([images, images.flip(3)], 3) if size else images
    torch.manual_seed(3)
    chunked = one_step(network, "softmax_triplet", images, labels, **{"train.accumulate": 4})

    obvious = copy.deepcopy(network)
    experiment = worker.experiment("unused")
    losses = TrainingStep(copy.deepcopy(network), make_optimizer(network, experiment.train.optim), experiment).losses
    torch.manual_seed(3)
    features = torch.cat([obvious.features(chunk) for chunk in images.chunk(4)])
    torch.stack(list(losses(features, obvious.logits(features), labels).values())).sum().backward()
    expected = {name: p.grad for name, p in obvious.named_parameters() if p.grad is not None}
    assert_equal_gradients(expected, chunked["gradients"])
    for name, buffer in obvious.named_buffers():
        torch.testing.assert_close(chunked["state"][name], buffer, msg=name)


def test_random_numbers_after_a_step_do_not_depend_on_the_second_pass() -> None:
    network = network_of("vit_tiny_patch16_224", **{"model.drop_path": 0.3, "model.input_width": 32})
    images, labels = worker.batch()
    images = torch.cat([images, images.flip(3)], 3)
    draws = []
    for chunks in (1, 2):
        torch.manual_seed(3)
        one_step(network, "softmax", images, labels, **{"train.accumulate": chunks})
        draws.append(torch.rand(3))
    assert torch.equal(*draws), "each image has drawn once"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_chunks_in_half_precision(precision: str) -> None:
    network = network_of()
    network.backbone.eval()
    whole = one_step(network, "triplet_center", *worker.batch(), **{"train.precision": precision})
    chunked = one_step(
        network, "triplet_center", *worker.batch(), **{"train.precision": precision, "train.accumulate": 4}
    )
    torch.testing.assert_close(chunked["parts"]["loss"], whole["parts"]["loss"], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(chunked["center"].centers, whole["center"].centers, atol=1e-3, rtol=1e-3)


def test_a_run_accumulates(build: Build, tmp_path: Path) -> None:
    experiment = build(train__accumulate=4, train__num_epochs=2)
    history = train(experiment, Recorder(), tmp_path).history
    assert len(history) == 2 and history[1]["loss"] > 0


def test_a_batch_that_cannot_be_divided_into_chunks_is_refused(build: Build, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train(build(train__accumulate=3), Recorder(), tmp_path)
    assert str(caught.value) == (
        "dataset.batch_size = 16 cannot be divided among 1 worker with train.accumulate = 3 each: the next size that "
        "can, with dataset.num_instances = 4, is 24."
    )
