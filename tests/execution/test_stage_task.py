"""Stages on a cluster that is started with one GPU that does not exist; Ray places tasks as if it did."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.execution.cluster.session import ray_session
from reid_tune.execution.placement import Placement, compute_placement
from reid_tune.execution.stage_task import run_stage_on_gpu, scoring_device
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import ArtifactWritten, StageDone
from reid_tune.journal.journal import Journal
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.resources import Resources
from reid_tune.storage.s3 import S3Store
from reid_tune.sweep.stages.export import export_finalists
from reid_tune.sweep.stages.test_set import evaluate_finalists as run_test

from ..helpers.refitted_sweep import refitted
from ..helpers.simulated_driver import SPEC, make_sweep

pytestmark = pytest.mark.usefixtures("no_fsync")
SECRET = "open sesame 4711"
SPEC_OF_ANOTHER_GPU = SPEC | {"encryption_key": SECRET, "export": {"gpu_id": 3}}


@pytest.fixture(scope="module")
def one_gpu() -> Iterator[Placement]:
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as folder,
    ):
        patch.setenv("TMPDIR", folder)  # Short enough for Ray's sockets.
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        patch.setattr(ray, "init", partial(ray.init, num_gpus=1))
        with ray_session():
            yield compute_placement(Resources(), 1)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepConfig:
    return make_sweep(tmp_path, SPEC_OF_ANOTHER_GPU)


@pytest.fixture
def journal(sweep: SweepConfig) -> Journal:
    journal = Journal(sweep.folder)
    journal.emit(StageDone(stage="confirm", result={"winner": 3}))
    return journal


def seen(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
    """A stage that tells where it runs, and what it is given."""
    journal.emit(ArtifactWritten(path="picture.png", folder="test"))
    print("left out: one", file=sys.stderr)
    experiment = sweep.experiment
    return {
        "pid": os.getpid(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpus": ray.get_gpu_ids(),
        "index": experiment.export.gpu_id,
        "key": experiment.encryption_key,
        "winner": journal.state.stages["confirm"]["winner"],
        "folder": str(journal.folder),
        "checkpoint": journal.files.newest_checkpoint("refit/winner"),
    }


def by_value(stage: Any) -> Any:
    """The stage as a function that workers need not import: they do not know this file."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return stage


@pytest.mark.integration
def test_where_runs_have_gpus_a_stage_holds_one_in_a_separate_process(
    one_gpu: Placement, sweep: SweepConfig, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_gpu.gpus == 1
    before = len(journal.earlier_events)
    result = run_stage_on_gpu("seen", by_value(seen), sweep, journal, one_gpu)
    assert result.pop("pid") != os.getpid()
    assert result == {
        "visible": "0",
        "gpus": [0],
        "index": 0,
        "key": None,
        "winner": 3,
        "folder": str(sweep.folder),
        "checkpoint": None,
    }
    assert sweep.experiment.encryption_key == SECRET
    assert [type(event) for event in read_events(journal.path)[before:]] == [StageDone, ArtifactWritten]
    assert capsys.readouterr().err == "left out: one\n"


@pytest.mark.integration
def test_export_and_test_do_there_what_they_do_here(one_gpu: Placement, tmp_path: Path) -> None:
    """The task computes on the CPU, as the GPU does not exist."""
    sweep, journal = refitted(tmp_path)
    exported, in_task = (
        run_stage_on_gpu("stage", stage, sweep, journal, one_gpu) for stage in (export_finalists, run_test)
    )
    assert exported["winner"]["file"] == "export/winner.onnx" and exported["winner"]["parity"]
    events = read_events(journal.path)
    in_process = run_test(sweep, journal)
    for tested in (in_task, in_process):
        tested["models"]["winner"].pop("latency")
    assert in_task == in_process
    drawn = [replace(event, time=0) for event in events[-6:]]
    assert drawn == [replace(event, time=0) for event in read_events(journal.path)[len(events) :]]


@pytest.mark.integration
def test_a_stage_waits_for_the_gpu(one_gpu: Placement, sweep: SweepConfig, journal: Journal, tmp_path: Path) -> None:
    held, ended = tmp_path / "held", tmp_path / "ended"

    def hold() -> None:
        held.touch()
        time.sleep(3)
        ended.touch()

    def begin(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
        return {"free": ended.exists()}

    holder = ray.remote(num_gpus=1, num_cpus=0, max_calls=1)(by_value(hold)).remote()
    while not held.exists():
        time.sleep(0.05)
    assert run_stage_on_gpu("begin", by_value(begin), sweep, journal, one_gpu) == {"free": True}
    ray.get(holder)


@pytest.mark.integration
def test_faults_of_a_stage_are_its_own_sentences(one_gpu: Placement, sweep: SweepConfig, journal: Journal) -> None:
    def refuse(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
        raise InputError("the stage test needs its folders.")

    def die(sweep: SweepConfig, journal: Journal) -> dict[str, Any]:
        os._exit(1)

    with pytest.raises(InputError, match=r"^the stage test needs its folders\.$"):
        run_stage_on_gpu("refuse", by_value(refuse), sweep, journal, one_gpu)
    with pytest.raises(InfrastructureError, match=r"^the process of the stage die was lost .*--resume auto\.$"):
        run_stage_on_gpu("die", by_value(die), sweep, journal, one_gpu)


@pytest.mark.parametrize("placement", [None, Placement(1, 0, 1)])
def test_without_gpus_a_stage_runs_in_this_process(
    placement: Placement | None, sweep: SweepConfig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "remote", None)
    result = run_stage_on_gpu(
        "stage",
        lambda sweep, journal: {"pid": os.getpid(), "key": sweep.experiment.encryption_key},
        sweep,
        journal,
        placement,
    )
    assert result == {"pid": os.getpid(), "key": SECRET}


def test_files_in_a_bucket_stay_with_the_driver(
    sweep: SweepConfig, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "remote", None)
    stored = replace(sweep, remote=S3Store("s3://bucket/runs"))
    assert run_stage_on_gpu("stage", lambda *_: {"pid": os.getpid()}, stored, journal, Placement(1, 1, 1)) == {
        "pid": os.getpid()
    }


@pytest.mark.parametrize(("gpus", "device"), [("auto", "cuda:0"), (0.5, "cuda:0"), (0, "cpu")])
def test_a_stage_scores_on_a_gpu_unless_runs_are_to_use_none(
    gpus: float | str, device: str, sweep: SweepConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is simulated."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    resources = sweep.file.resources.model_copy(update={"gpus_per_worker": gpus})
    asking = replace(sweep, file=sweep.file.model_copy(update={"resources": resources}))
    assert str(scoring_device(asking)) == device
