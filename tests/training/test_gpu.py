"""Training on a GPU: every execution of a step has the numbers of the eager one, and the host does not wait."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.data.transfer import HostCopy
from reid_tune.errors import OutOfMemoryError
from reid_tune.training.determinism import configure_kernels
from reid_tune.training.loop import train
from reid_tune.training.pipeline import training_batches
from reid_tune.training.state import TrainingState, create_or_resume

from .conftest import Build, Recorder

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)
VALUES: dict[str, Any] = {"train__cudnn__benchmark": False, "train__tf32": False, "train__num_epochs": 2}


@pytest.fixture(scope="module")
def plain(build: Build, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Epochs of a run with none of these settings."""
    experiment = build(**VALUES, dataset__resident=False)
    return train(experiment, Recorder(), tmp_path_factory.mktemp("plain"), device=GPU).history


@pytest.mark.parametrize(
    "values", [{"dataset__resident": True}, {"train__cuda_graphs": True}, {"train__compile": True}], ids=str
)
def test_ways_of_running_a_step_have_the_same_numbers(
    build: Build, plain: list[dict[str, Any]], tmp_path: Path, values: dict[str, Any]
) -> None:
    history = train(build(**VALUES, **values), Recorder(), tmp_path, device=GPU).history
    for epoch, expected in zip(history, plain, strict=True):
        for name in ("loss", "loss/identity", "loss/triplet"):
            assert epoch[name] == pytest.approx(expected[name], rel=1e-3), name


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_graphs_are_recorded_on_the_gpu_of_the_run(build: Build, plain: list[dict[str, Any]], tmp_path: Path) -> None:
    experiment = build(**VALUES, train__cuda_graphs=True)
    history = train(experiment, Recorder(), tmp_path, device=torch.device("cuda", 1)).history
    assert history[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=1e-3)


def test_a_gpu_and_the_cpu_train_alike(build: Build, plain: list[dict[str, Any]], tmp_path: Path) -> None:
    history = train(build(**VALUES), Recorder(), tmp_path).history
    assert history[0]["loss"] == pytest.approx(plain[0]["loss"], rel=0.01)


@pytest.fixture
def run(build: Build, tmp_path: Path, request: pytest.FixtureRequest) -> TrainingState:
    values = getattr(request, "param", {})
    return create_or_resume(build(**VALUES, **values), tmp_path, GPU, None)


def steps(run: TrainingState, count: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the parts of the loss in the first steps of a run."""
    run.network.train()
    epochs = range(count)
    with (
        configure_kernels(run.experiment.train, GPU),
        training_batches(run.experiment, run.data, run.image_source, GPU, epochs) as batches,
    ):
        for _ in range(count):
            yield run.step(*run.prepare_inputs(next(batches)))


EVERYTHING = {"dataset__color_jitter__prob": 0.5, "train__clip_grad_norm": 1.0}
CENTER = {"model__with_center_loss": True, "model__metric_loss_type": "triplet_center"}


@pytest.mark.parametrize(
    "run",
    [
        {"dataset__resident": True},
        {"dataset__resident": False},
        {"train__precision": "bf16", **EVERYTHING},
        {"train__precision": "fp16", **CENTER},
        {"train__precision": "fp16", "train__optim__name": "SGD"},
        {"train__accumulate": 2},
    ],
    indirect=True,
    ids=str,
)
def test_the_host_waits_for_nothing_in_a_step(run: TrainingState) -> None:
    running = steps(run, 6)
    for _ in range(3):
        next(running)  # memory, kernels and the constants of the normalisation
    torch.cuda.set_sync_debug_mode("error")
    try:
        for parts in running:
            copy = HostCopy(torch.stack(list(parts.values())))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(value > 0 for value in copy.read()[:1])


def test_accumulation_has_the_losses_and_gradients_of_the_whole_batch(build: Build, tmp_path: Path) -> None:
    gradients = []
    for number, chunks in enumerate((1, 4)):
        experiment = build(**VALUES, train__accumulate=chunks)
        run = create_or_resume(experiment, tmp_path / str(number), GPU, None)
        run.network.backbone.eval()
        with (
            configure_kernels(experiment.train, GPU),
            training_batches(experiment, run.data, run.image_source, GPU, range(1)) as batches,
        ):
            run.step(*run.prepare_inputs(next(batches)))
        gradients.append({name: p.grad for name, p in run.network.named_parameters() if p.grad is not None})
    largest = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert float((gradient - gradients[1][name]).abs().max()) < 1e-4 * largest, name


def test_a_checkpoint_has_the_weights_at_the_end_of_its_epoch(build: Build, tmp_path: Path) -> None:
    """The copy to the host is queued on the GPU's stream, and the next steps start before it is complete."""

    class Snapshot(Recorder):
        def report_epoch(self, metrics: Any) -> None:
            super().report_epoch(metrics)
            states.append(load_checkpoint(tmp_path / LATEST))

    states: list[Any] = []
    values = VALUES | {"train__deterministic": True, "train__num_epochs": 3}
    train(build(**values), Snapshot(), tmp_path, device=GPU)
    for epoch, state in enumerate(states, start=1):
        alone = tmp_path / f"alone-{epoch}"
        with pytest.raises(InterruptedError):
            train(build(**values), Recorder(stop_after=epoch), alone, device=GPU)
        expected = load_checkpoint(alone / LATEST).model
        assert state.epoch == epoch
        assert all(torch.equal(tensor, state.model[name]) for name, tensor in expected.items())


def test_too_little_memory_is_one_sentence(build: Build, tmp_path: Path) -> None:
    torch.cuda.empty_cache()  # Memory that the allocator holds is not limited.
    torch.cuda.set_per_process_memory_fraction(0.001)
    try:
        with pytest.raises(OutOfMemoryError, match=r"^out of memory: GPU 0 \(.*at most .*dataset.batch_size = 16"):
            train(build(**VALUES, model__backbone="resnet_50"), Recorder(), tmp_path, device=GPU)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
