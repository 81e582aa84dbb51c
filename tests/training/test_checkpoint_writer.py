"""Checkpoints in the background: atomic, with the state at `save`, and on the disk before a report."""

import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.checkpoints import checkpoint as checkpoint_file
from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.errors import InfrastructureError, NonFiniteError
from reid_tune.training import loop
from reid_tune.training.checkpoint_writer import CheckpointWriter
from reid_tune.training.loop import train
from reid_tune.training.state import TrainingState, create_or_resume
from reid_tune.training.step import TrainingStep

from .conftest import Build, Recorder


@pytest.fixture
def run(build: Build, tmp_path: Path) -> TrainingState:
    run = create_or_resume(build(), tmp_path, torch.device("cpu"), None)
    run.history.append({"epoch": 1, "loss": 1.0})
    return run


def blocked_writes(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let every file wait for an event before it is written."""
    allowed, save = threading.Event(), torch.save

    def wait_and_save(*arguments: Any) -> None:
        assert allowed.wait(20)
        save(*arguments)

    monkeypatch.setattr(checkpoint_file.torch, "save", wait_and_save)
    return allowed


def test_the_file_has_the_state_at_the_time_of_saving(run: TrainingState, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = blocked_writes(monkeypatch)
    weight = run.network.projection.weight
    before = weight.detach().clone()
    with CheckpointWriter(run, keep_best=False) as writer:
        writer.save()
        with torch.no_grad():
            weight.fill_(7.0)
        run.history[0]["loss"] = 2.0
        assert not writer.is_idle and not (run.directory / LATEST).exists()
        allowed.set()
        writer.wait()
        assert writer.is_idle
        saved = load_checkpoint(run.directory / LATEST)
        assert torch.equal(saved.model["projection.weight"], before) and saved.history[0]["loss"] == 1.0
        run.history.append({"epoch": 2, "loss": 1.0})
        writer.save()
    saved = load_checkpoint(run.directory / LATEST)
    assert saved.epoch == 2 and bool((saved.model["projection.weight"] == 7).all()), "memory is used again"


def test_one_file_is_written_at_a_time(run: TrainingState, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = blocked_writes(monkeypatch)
    with CheckpointWriter(run, keep_best=False) as writer:
        writer.save()
        second = threading.Thread(target=writer.save)
        second.start()
        second.join(0.2)
        assert second.is_alive(), "the second file waits for the first"
        allowed.set()
        second.join(20)
        assert not second.is_alive()


def test_a_full_disk_ends_the_run_with_its_sentence(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    recorder = Recorder()
    monkeypatch.setattr(checkpoint_file.torch, "save", full)
    with pytest.raises(InfrastructureError, match=f"cannot write {tmp_path / LATEST}: No space left on device"):
        train(build(), recorder, tmp_path)
    assert recorder.reports == [], "no epoch is reported without its checkpoint"


def test_an_epoch_is_reported_once_its_checkpoint_is_there(build: Build, tmp_path: Path) -> None:
    class Reader(Recorder):
        def report_epoch(self, metrics: Any) -> None:
            super().report_epoch(metrics)
            assert load_checkpoint(tmp_path / LATEST).epoch == metrics["epoch"]

    recorder = Reader()
    train(build(), recorder, tmp_path)
    assert [metrics["epoch"] for metrics in recorder.reports] == [1, 2, 3]


def test_an_epoch_is_reported_though_the_next_one_diverges(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the second epoch becomes infinite while the first one's checkpoint is still being written."""
    steps, take_step = [], TrainingStep.__call__

    def diverging(self: TrainingStep, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        values = take_step(self, *inputs)
        steps.append(values)
        return values if len(steps) <= 4 else values | {"loss": values["loss"] * torch.inf}

    monkeypatch.setattr(TrainingStep, "__call__", diverging)
    monkeypatch.setattr(loop, "_STEPS_PER_CHECK", 1)
    monkeypatch.setattr(CheckpointWriter, "is_idle", False)
    recorder = Recorder()
    with pytest.raises(NonFiniteError, match="epoch 2, step 1"):
        train(build(), recorder, tmp_path)
    assert len(steps) < 8 and [metrics["epoch"] for metrics in recorder.reports] == [1]


def test_an_interrupted_loop_finishes_the_file_of_the_last_whole_epoch(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Recorder):
        def report_step(self, step: int, loss: float) -> None:
            super().report_step(step, loss)
            if len(self.steps) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(build(), Interrupted(), tmp_path)
    assert load_checkpoint(tmp_path / LATEST).epoch == 1


# Writes the checkpoint of the first epoch; is killed when half of the second one's file is there.
_KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from reid_tune.checkpoints import checkpoint
from reid_tune.config.load import load_experiment
from reid_tune.training.loop import train
from tests.helpers.training_worker import SilentReporter

save, written = torch.save, []

def save_half(content, path):
    save(content, path)
    if content["epoch"] == 2:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.torch.save = save_half
train(load_experiment(Path(sys.argv[1])), SilentReporter(), Path(sys.argv[2]))
"""


@pytest.mark.integration
def test_a_kill_during_a_write_leaves_the_checkpoint_before_whole(build: Build, tmp_path: Path) -> None:
    spec, folder = tmp_path / "spec.yaml", tmp_path / "run"
    spec.write_text(build().to_yaml())
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", _KILLED, spec, folder], cwd=root, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert load_checkpoint(folder / LATEST).epoch == 1
    recorder = Recorder()
    train(build(), recorder, folder)
    assert recorder.started is not None and recorder.started[1] == 2 and len(recorder.reports) == 3
