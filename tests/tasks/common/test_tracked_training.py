"""A single training in MLflow: `train --track`."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import RunFailedError
from reid_tune.journal.event_log import read_events, read_header
from reid_tune.journal.events import TrainingEpoch
from reid_tune.sweep.mlflow_sync import sync
from reid_tune.tasks.train import run_train
from reid_tune.tracking.store import client

from ..conftest import Spec


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('record')}/mlflow.db"


@pytest.fixture(autouse=True)
def place(uri: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_NAME", request.node.name)


@pytest.fixture
def runs(uri: str, request: pytest.FixtureRequest) -> Any:
    """The runs of this test, the oldest first."""

    def find() -> list[Any]:
        connection = client(uri)
        experiment = connection.get_experiment_by_name("train").experiment_id
        name = f"attributes.run_name = '{request.node.name}'"
        return list(connection.search_runs([experiment], name, order_by=["attributes.start_time"]))

    return find


def points(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(uri).get_metric_history(run.info.run_id, metric)]


def test_a_training_that_goes_on_is_one_run_with_every_epoch_once(
    spec: Spec, uri: str, runs: Any, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_train(spec(), track=True)
    assert "MLflow: run test_a_training_that_goes_on" in capfd.readouterr().err
    (first,) = runs()
    assert (first.info.status, first.data.tags["state"]) == ("FINISHED", "finished")
    assert first.data.params["model.backbone"] == "test_resnet" and "results_dir" not in first.data.params
    assert [entry.dataset.name for entry in first.inputs.dataset_inputs] == ["data/bounding_box_train"]
    files = {file.path for file in client(uri).list_artifacts(first.info.run_id)}
    assert files == {"spec.yaml", "schedule.png"}

    run_train(spec(train__num_epochs=3), track=True)
    (again,) = runs()
    assert again.info.run_id == first.info.run_id and again.info.status == "FINISHED"
    events = [
        event for event in read_events(tmp_path / "results/train/events.jsonl") if isinstance(event, TrainingEpoch)
    ]
    losses = [(event.epoch, event.metrics["loss"]) for event in events]
    assert [epoch for epoch, _ in losses] == [1, 2, 3]
    assert points(uri, again, "train/loss") == losses
    assert [step for step, _ in points(uri, again, "val/mAP")] == [1, 2, 3]
    assert points(uri, again, "train/memory_megabytes")[0][1] > 100


def test_a_training_anew_or_from_a_named_checkpoint_is_another_run(
    spec: Spec, uri: str, runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "results" / "train"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    run_train(spec(train__num_epochs=2), track=True)
    uid = read_header(folder / "events.jsonl").uid
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    named = shutil.copy(folder / "model_epoch_000.pth", tmp_path / "named.pth")
    again = {"train__resume_training_checkpoint_path": str(named), "train__optim__base_lr": 1e-5}
    run_train(spec(train__num_epochs=2, **again), track=True)
    (run,) = runs()
    assert run.data.params["train.optim.base_lr"] == "1e-05"
    assert [step for step, _ in points(uri, run, "train/loss")] == [1, 2]
    found = sync(str(folder), "runs", uri, print)
    assert [each.name for each in found] == [str(folder / f"events-{uid}.jsonl"), str(folder)]
    assert [each.sent.events > 0 for each in found] == [True, False]
    assert [run.info.status for run in runs()] == ["FINISHED", "FINISHED"]


def test_a_training_that_fails_is_a_failed_run_with_its_reason(spec: Spec, runs: Any) -> None:
    with pytest.raises(RunFailedError):
        run_train(spec(train__num_epochs=9, train__optim__name="SGD", train__optim__base_lr=10), track=True)
    (run,) = runs()
    assert run.info.status == "FAILED" and "train.clip_grad_norm" in run.data.tags["reason"]


@pytest.mark.integration
def test_workers_are_one_run(spec: Spec, uri: str, runs: Any) -> None:
    run_train(spec(train__num_gpus=2), track=True)
    (run,) = runs()
    assert len(points(uri, run, "train/loss")) == 1 and run.info.status == "FINISHED"


def test_a_store_that_is_away_stops_nothing_and_gets_it_later(
    spec: Spec, uri: str, runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:9")
    run_train(spec(), track=True)
    said = capfd.readouterr().err
    folder = tmp_path / "results" / "train"
    assert "warning: the MLflow store http://127.0.0.1:9" in said and f"reid-tune sync {folder}" in said
    assert "hush" not in said + (folder / "events.jsonl").read_text()
    (found,) = sync(str(folder), "runs", uri, print)
    assert str(found) == f"{folder}: {len(read_events(folder / 'events.jsonl'))} events sent to {uri}"
    (run,) = runs()
    assert run.info.status == "FINISHED" and len(points(uri, run, "train/loss")) == 1
    assert str(sync(str(folder), "runs", uri, print)[0]).endswith(f"nothing was left to send to {uri}")


def test_a_training_that_is_not_tracked_writes_no_log(spec: Spec, tmp_path: Path) -> None:
    run_train(spec())
    assert not (tmp_path / "results/train/events.jsonl").exists()
    shutil.rmtree(tmp_path / "results")
