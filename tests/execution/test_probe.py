import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from reid_tune.config.load import with_parameters
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InputError, OutOfMemoryError
from reid_tune.execution.cluster.session import ray_session
from reid_tune.execution.placement import Placement
from reid_tune.execution.probe import run_probe
from reid_tune.execution.probe_steps import ProbeResult, measure_training
from reid_tune.search_space.load import SweepConfig
from reid_tune.training.data_split import load_split

from ..helpers.cli_sweep import SPEC
from ..helpers.simulated_driver import make_sweep

MODEL = {"model": SPEC["model"] | {"backbone": "test_resnet"}}
CPU = torch.device("cpu")
Batches = list[tuple[bool, int]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe") / "data"
    draw_demo_data(folder, identities=16, images=6)
    return folder


@pytest.fixture
def sweep(tmp_path: Path, data: Path) -> SweepConfig:
    dataset = {"train_dataset_dir": str(data / "bounding_box_train"), "batch_size": 16, "padding": 2}
    return make_sweep(tmp_path, SPEC | MODEL | {"dataset": dataset})


@contextmanager
def batches() -> Iterator[Batches]:
    """What the network's first convolution sees: whether in training, and how many images."""
    seen: Batches = []

    def note(module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
            seen.append((module.training, len(inputs[0])))

    handle = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_twenty_steps_on_a_share_of_the_batch_and_one_validation(sweep: SweepConfig, workers: int) -> None:
    with batches() as seen:
        measured, busy = measure_training(sweep.experiment, CPU, workers)
    assert measured.steps < 20  # An epoch has fewer.
    assert seen[-21:-1] == [(True, 16 // workers)] * 20
    held_out = load_split(sweep.experiment)
    assert seen[-1] == (False, len(held_out.query) + len(held_out.gallery))
    assert busy >= measured.decoding + 20 * measured.step + measured.validation
    assert measured.step > 0 and measured.validation > 0 and measured.gpu_memory == 0
    assert 50e6 < measured.memory < 20e9
    assert sorted(path.name for path in sweep.source.parent.iterdir()) == ["spec.yaml", "sweep.yaml"]


class FakeGpu:
    """A GPU of 5,000 bytes, of which CUDA takes 200; a step takes 1,000 and 100 for each image."""

    def __init__(self, seen: Batches, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.cuda, "synchronize", lambda _: None)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
        patch.setattr(torch.cuda, "max_memory_reserved", lambda _: 3000)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda _: 1000 + 100 * seen[-1][1])

    def context(self) -> int:
        return 200

    def available(self) -> int:
        return 4800


@pytest.mark.parametrize(
    ("train", "workers", "images", "largest"),
    # 38 images would fit, and 4 of an identity make a batch of 36. A half of two workers has too few identities.
    [
        ({}, 1, [16, 16, 8, 8], 36),
        ({}, 2, [8, 8], 0),
        ({"compile": "auto"}, 1, [16, 16], 0),
        ({"cuda_graphs": True}, 1, [], 0),
    ],
)
def test_the_memory_of_a_gpu_is_measured_last_in_two_batches(
    sweep: SweepConfig,
    train: dict[str, Any],
    workers: int,
    images: list[int],
    largest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a GPU: the figures of its memory are made up, the steps are not."""
    values = {f"train.{name}": value for name, value in train.items()}
    experiment = with_parameters(sweep.experiment, values, "test")
    with batches() as seen:
        gpu: Any = FakeGpu(seen, monkeypatch)
        measured, busy = measure_training(experiment, CPU, workers, gpu)
    last_validation = max(index for index, (training, _) in enumerate(seen) if not training)
    assert seen[last_validation + 1 :] == [(True, number) for number in images]
    assert (measured.gpu_memory, measured.gpu_context) == (3000, 200)
    assert measured.step_memory == (1000 + 100 * images[0] if images else 0) and measured.largest_batch == largest
    assert busy > measured.decoding + 20 * measured.step + measured.validation


def test_exhausted_memory_is_one_sentence(sweep: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("reid_tune.execution.probe_steps._time_steps", fail)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory: .* dataset\.batch_size = 16 .* train\.accumulate"):
        measure_training(sweep.experiment, CPU, 1)


def test_a_missing_compiler_is_said_before_any_image_is_decoded(
    sweep: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "missing")
    monkeypatch.setattr("reid_tune.execution.probe_steps._decode_images", None)
    with pytest.raises(InputError, match="train.compile = true needs a C"):
        measure_training(with_parameters(sweep.experiment, {"train.compile": True}, "test"), CPU, 1)


def test_a_part_of_a_large_hold_out_stands_for_all_of_it(sweep: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_tune.execution.probe_steps._EMBEDDED", 5)
    with batches() as seen:
        measured, _ = measure_training(sweep.experiment, CPU, 1)
    assert seen[-2:] == [(True, 16), (False, 5)]
    assert measured.validation > 0


def test_the_pace_counts_the_validations_of_a_full_length_run(sweep: SweepConfig) -> None:
    measured = ProbeResult(decoding=1, start=7, step=2, steps=5, validation=3, memory=1, gpu_memory=0)
    rare = with_parameters(sweep.experiment, {"train.num_epochs": 10, "train.validation_interval": 4}, "test")
    assert measured.epoch_timing(rare).seconds(10) == pytest.approx(7 + 10 * 5 * 2 + 3 * len({4, 8, 10}))
    assert measured.epoch_timing(rare, (3, 8, 12)).seconds(10) == pytest.approx(7 + 10 * 5 * 2 + 3 * len({3, 4, 8, 10}))


def test_a_batch_that_workers_cannot_divide_is_refused(sweep: SweepConfig) -> None:
    with pytest.raises(InputError, match="batch_size = 16 cannot be divided among 3 workers"):
        measure_training(sweep.experiment, CPU, 3)


@pytest.mark.integration
def test_the_spec_is_probed_on_ray_as_a_trial_would_run(sweep: SweepConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Placement(1, 0, 1)
    absurd = with_parameters(sweep.experiment, {"dataset.pixel_std": [1e-38] * 3}, "test")
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)  # Short enough for Ray's sockets.
        with ray_session():
            measured = run_probe(sweep, one, 1)
            with pytest.raises(InputError) as caught:
                run_probe(replace(sweep, experiment=absurd), one, 1)
    assert measured.start > measured.step > 0 and measured.memory > 50e6
    assert str(caught.value).startswith("spec.yaml: the spec itself, trial 0 of the sweep, cannot be trained: the loss")
    assert caught.value.__cause__ is None and "\n" not in str(caught.value)
    assert not sweep.folder.exists()
