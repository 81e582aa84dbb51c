"""Workers of a single run: results, errors, deaths and ends."""

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from reid_tune.checkpoints.checkpoint import load_checkpoint
from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.errors import InfrastructureError, InputError, RunFailedError
from reid_tune.training import launch
from reid_tune.training.devices import task_devices, worker_devices
from reid_tune.training.launch import _run_worker, launch_workers
from reid_tune.training.loop import train
from reid_tune.training.timeouts import GROUP_TIMEOUT
from tests.helpers.training_together import add_up

from .conftest import Build, Recorder

CPU = torch.device("cpu")


def fail(kind: str, device: torch.device) -> None:
    if dist.get_rank() == 1:
        if kind == "fault":
            raise InputError("the file is bad.")
        if kind == "bug":
            raise ValueError("a bug")
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def test_workers_share_a_group(tmp_path: Path) -> None:
    launch_workers(add_up, (tmp_path,), [CPU] * 2)
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["0", "1"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"3.0 of 2"}
    assert str(os.getpid()) not in {path.name[2:] for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["#", "?", "run#7", "a?b=c"])
def test_a_folder_that_is_another_one_in_an_address_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    with pytest.raises(InfrastructureError, match=r"^TMPDIR = .*name another folder in TMPDIR\.$"):
        launch_workers(add_up, (tmp_path,), [CPU] * 2)


def test_errors_of_workers_are_pickled_where_no_other_user_can_write(monkeypatch: pytest.MonkeyPatch) -> None:
    modes, before = [], tempfile.gettempdir()

    def start(*_: Any, **options: Any) -> None:
        with tempfile.NamedTemporaryFile() as file:  # as torch does
            modes.append(Path(file.name).parent.stat().st_mode & 0o777)
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "start_processes", start)
    with pytest.raises(KeyboardInterrupt):
        launch_workers(add_up, (), [CPU] * 2)
    assert modes == [0o700] and tempfile.gettempdir() == before


@pytest.mark.integration
def test_a_fault_in_one_worker_ends_all_and_is_the_runs() -> None:
    with pytest.raises(InputError, match="^the file is bad.$"):
        launch_workers(fail, ("fault",), [CPU] * 2)
    with pytest.raises(RunFailedError, match=r"^worker 1 of 2 died \(Killed\)\.$"):
        launch_workers(fail, ("death",), [CPU] * 2)
    with pytest.raises(Exception, match="ValueError: a bug"):
        launch_workers(fail, ("bug",), [CPU] * 2)


def finish_a_file(folder: Path, device: torch.device) -> None:
    """Let rank 1 fail while rank 0 writes a file, which it finishes when it is ended."""
    begun = folder / "begun"
    if dist.get_rank() == 1:
        while not begun.exists():
            time.sleep(0.01)
        raise InputError("the file is bad.")
    try:
        begun.touch()
        signal.pause()
    finally:
        (folder / "finished").touch()


@pytest.mark.integration
def test_a_worker_that_is_ended_finishes_what_it_writes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the file is bad"):
        launch_workers(finish_a_file, (tmp_path,), [CPU] * 2)
    assert (tmp_path / "finished").exists()


def test_without_a_gpu_workers_are_processes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert worker_devices((0, 7), "train.gpu_ids") == [CPU, CPU]


def test_gpus_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of GPUs is a stand-in for a machine with two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert worker_devices((1, 0), "train.gpu_ids") == [torch.device("cuda", 1), torch.device("cuda", 0)]
    with pytest.raises(InputError, match="train.gpu_ids asks for GPU 2, but this machine has 2, numbered from 0"):
        worker_devices((0, 2), "train.gpu_ids")


@pytest.mark.parametrize("task", ["train", "evaluate", "inference"])
def test_more_gpus_than_the_machine_has_are_refused_by_the_field_that_counts(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of GPUs is a stand-in for a machine with one."""
    several = with_parameters(Experiment(), {f"{task}.num_gpus": 4}, "test")
    third = with_parameters(Experiment(), {f"{task}.gpu_ids": [3]}, "test")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert task_devices(several, task) == [CPU] * 4 and task_devices(third, task) == [CPU]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=rf"^{task}\.num_gpus = 4, but this machine has 1 GPU: set it to 1 at most\.$"):
        task_devices(several, task)
    with pytest.raises(InputError, match=rf"^{task}\.gpu_ids asks for GPU 3, but this machine has 1"):
        task_devices(third, task)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert task_devices(several, task) == [torch.device("cuda", index) for index in range(4)]


@pytest.mark.parametrize(("device", "named"), [(torch.device("cuda", 1), torch.device("cuda", 1)), (CPU, None)])
def test_a_process_group_knows_its_gpu_and_waits_long(
    device: torch.device, named: torch.device | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, torch's functions are replaced by ones that record their arguments."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **options: calls.append({"backend": backend, **options})
    )
    for owner, name in (
        (torch, "set_num_threads"),
        (torch.cuda, "set_device"),
        (dist, "barrier"),
        (dist, "destroy_process_group"),
        (signal, "signal"),
    ):
        monkeypatch.setattr(owner, name, lambda *_: None)
    _run_worker(0, lambda _: None, (), [device], str(tmp_path))
    (options,) = calls
    assert options["backend"] == ("nccl" if named else "gloo")
    assert options["device_id"] == named and options["timeout"] == GROUP_TIMEOUT


def note_compile_processes(folder: Path, device: torch.device) -> None:
    (folder / str(dist.get_rank())).write_text(os.environ["TORCHINDUCTOR_COMPILE_THREADS"])


@pytest.mark.integration
def test_workers_share_the_cores_for_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "")
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS")
    launch_workers(note_compile_processes, (tmp_path,), [CPU] * 2)
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == [share, share]


def kill_second_worker(at: int) -> None:
    """Let rank 1 die in the backbone of a training step, so that rank 0 waits for its features."""
    passes = 0

    def count(module: nn.Module, _: object) -> None:
        nonlocal passes
        passes += isinstance(module, nn.MaxPool2d) and module.training
        if dist.get_rank() == 1 and passes == at:
            os.kill(os.getpid(), signal.SIGKILL)

    register_module_forward_pre_hook(count)


def deadly_run(experiment: Experiment, folder: Path, at: int, device: torch.device) -> None:
    (folder / f"pid-{os.getpid()}").touch()
    kill_second_worker(at)
    train(experiment, Recorder(), folder, device=device)


@pytest.mark.integration
def test_a_worker_killed_in_a_step_ends_the_run_which_goes_on_from_its_checkpoint(build: Build, tmp_path: Path) -> None:
    experiment = build(dataset__batch_size=12, train__num_epochs=2, train__checkpoint_interval=1)
    steps = 72 // 12
    with pytest.raises(RunFailedError) as caught:
        launch_workers(deadly_run, (experiment, tmp_path, steps + 3), [CPU] * 2)
    assert str(caught.value) == "worker 1 of 2 died (Killed)."
    pids = {int(path.name[4:]) for path in tmp_path.glob("pid-*")}
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert sorted(os.listdir(tmp_path)) == sorted(
        [*(f"pid-{pid}" for pid in pids), "model_epoch_000.pth", "reid_model_latest.pth"]
    )
    before = load_checkpoint(tmp_path / "reid_model_latest.pth")
    assert before.epoch == len(before.history) == 1
    resumed = train(experiment, Recorder(), tmp_path)
    assert [epoch["epoch"] for epoch in resumed.history] == [1, 2] and resumed.history[:1] == before.history
