"""Workers of a run of its own: results, faults, deaths and ends."""

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from reid_tune.errors import FailedRun, InputError
from reid_tune.training.devices import devices
from reid_tune.training.launch import launch

CPU = torch.device("cpu")


def add_up(folder: Path, device: torch.device) -> None:
    total = torch.tensor([dist.get_rank() + 1.0], device=device)
    dist.all_reduce(total)
    (folder / f"{dist.get_rank()}-{os.getpid()}").write_text(f"{total.item()} of {dist.get_world_size()}")


def fail(kind: str, device: torch.device) -> None:
    if dist.get_rank() == 1:
        if kind == "fault":
            raise InputError("the file is bad.")
        if kind == "bug":
            raise ValueError("a bug")
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def test_workers_share_a_group(tmp_path: Path) -> None:
    launch(add_up, (tmp_path,), [CPU] * 3)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["0", "1", "2"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"6.0 of 3"}
    assert str(os.getpid()) not in {path.name[2:] for path in tmp_path.iterdir()}


def test_a_fault_in_one_worker_ends_all_and_is_the_runs() -> None:
    with pytest.raises(InputError, match="^the file is bad.$"):
        launch(fail, ("fault",), [CPU] * 2)
    with pytest.raises(FailedRun, match="worker 1 of 2 died"):
        launch(fail, ("death",), [CPU] * 2)
    with pytest.raises(Exception, match="ValueError: a bug"):
        launch(fail, ("bug",), [CPU] * 2)


def test_without_a_gpu_workers_are_processes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices((0, 7), "train.gpu_ids") == [CPU, CPU]


def test_gpus_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of a machine with two GPUs is made up: there is none here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices((1, 0), "train.gpu_ids") == [torch.device("cuda", 1), torch.device("cuda", 0)]
    with pytest.raises(InputError, match="train.gpu_ids asks for GPU 2, but this machine has 2, numbered from 0"):
        devices((0, 2), "train.gpu_ids")
