"""One real SQLite store for all tests of this folder (making one takes seconds), and logs as a sweep writes them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reid_tune.journal.events import (
    ArtifactWritten,
    DriverEnded,
    EndState,
    EpochReported,
    Event,
    ModelRegistered,
    RunEnded,
    RunSuggested,
    StageDone,
    StageStarted,
)
from reid_tune.tracking import sender as sending
from reid_tune.tracking.sender import Sender
from reid_tune.tracking.store import client

from ..helpers.events import attempt_started, driver_started, sweep_header, write_events
from ..helpers.postgresql import PostgreSQL, needs_postgresql, postgresql_server

PATIENCE = 120
ENVIRONMENT = {"data": {"folders": ["/data/market1501/bounding_box_train"], "fingerprint": "0123abcd" * 4}}
SPEC = {
    "model.backbone": "resnet_50",
    "train.optim.lr_steps": [40, 70],
    "train.optim.base_lr": 3.5e-4,
    "train.optim.name": "Adam",
    "model.no_margin": False,
    "dataset.test_dataset_dir": None,
    "encryption_key": "very secret",
    "results_dir": "/somewhere",
    "train.results_dir": "/somewhere/train",
    **{f"filler.{number:03}": number for number in range(120)},
}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('a store')}/mlflow.db"
    client(uri)
    return uri


@pytest.fixture(scope="session")
def connection(store: str) -> Any:
    return client(store)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with postgresql_server() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs_postgresql)])
def backend(request: pytest.FixtureRequest) -> str | None:
    """The address of an empty store for an MLflow server; None for a file next to the server."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgresql").new_database())


@pytest.fixture(autouse=True)
def quick_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders look at their log at once."""
    monkeypatch.setattr(sending, "_POLL_SECONDS", 0.02)


def wait_until_sent(sender: Sender) -> None:
    while sender.lag:
        assert sender.last_error is None
        time.sleep(0.01)


@pytest.fixture
def events() -> Callable[[str, Path], list[Event]]:
    """The events of a small sweep: a finished, a stopped and a failed trial, and an artifact."""

    def make(name: str, artifact: Path) -> list[Event]:
        def report(run: str, epoch: int) -> Event:
            metrics = {"loss": 1 / epoch, "loss/identity": 0.5 / epoch, "lr": 1e-3, "images_per_second": 9.0}
            metrics |= {"mAP": 0.1 * epoch, "Rank-1": 0.2 * epoch, "queries": 7, "val_loss": 1 - 0.1 * epoch}
            usage = {"system/cpu_utilization_percentage": 50.0, "train/memory_megabytes": 700.0}
            return EpochReported(run=run, epoch=epoch, metrics=metrics, usage=usage)

        def begin(run: str, parameters: dict[str, Any]) -> list[Event]:
            return [RunSuggested(run=run, parameters=parameters), attempt_started(run=run)]

        def end(run: str, state: EndState, epoch: int, **reason: str) -> Event:
            return RunEnded(run=run, state=state, epoch=epoch, **reason)

        made = [
            sweep_header(name=name, uid=f"uid-{name}", spec=SPEC),
            driver_started(pid=1, host="here", command=[], environment=ENVIRONMENT),
            StageStarted(stage="search"),
            *begin("trials/0000", {}),
            *(report("trials/0000", epoch) for epoch in (1, 2, 3)),
            *begin("trials/0001", {"train.optim.base_lr": 1e-3, "train.optim.lr_steps": [5]}),
            report("trials/0001", 1),
            attempt_started(run="trials/0001", attempt=2),
            end("trials/0000", "finished", 3),
            report("trials/0001", 2),
            end("trials/0001", "stopped", 2),
            *begin("trials/0002", {"train.optim.name": "SGD"}),
            end("trials/0002", "failed", 0, reason="out of memory"),
            ArtifactWritten(run="trials/0000", path=str(artifact), folder="plots"),
            ArtifactWritten(path=str(artifact), folder=""),
            ModelRegistered(model="m", version=1, alias="champion"),
            StageDone(stage="register", result={}),
            DriverEnded(status="FINISHED"),
        ]
        return [replace(event, time=1_700_000_000.25 + number) for number, event in enumerate(made)]

    return make


@pytest.fixture
def write() -> Callable[[Path, list[Event]], None]:
    return write_events


@pytest.fixture
def snapshot(connection: Any) -> Callable[..., dict[str, Any]]:
    """All that a store knows of a sweep's runs, by run name and without ids: metrics as full histories."""

    def read(sweep: str, connection: Any = connection) -> dict[str, Any]:
        experiment = connection.get_experiment_by_name(sweep)
        runs = connection.search_runs([experiment.experiment_id])
        names = {run.info.run_id: run.info.run_name for run in runs}
        names = {key: "parent" if name == sweep else name for key, name in names.items()}
        assert len(set(names.values())) == len(runs)

        def history(run: str, key: str) -> list[tuple[int, int, float]]:
            points = connection.get_metric_history(run, key)
            return sorted((point.step, point.timestamp, point.value) for point in points)

        def facts(run: Any) -> dict[str, Any]:
            tags = {key: value.replace(f"uid-{sweep}", "UID") for key, value in run.data.tags.items()}
            tags.pop("mlflow.runName")
            if parent := tags.pop("mlflow.parentRunId", None):
                tags["parent"] = names[parent]
            return {
                "parameters": run.data.params,
                "tags": tags,
                "metrics": {key: history(run.info.run_id, key) for key in run.data.metrics},
                "time": (run.info.start_time, run.info.end_time),
                "status": run.info.status,
                "files": [file.path for file in connection.list_artifacts(run.info.run_id)],
                "data": [(x.dataset.name, x.dataset.digest, x.tags[0].value) for x in run.inputs.dataset_inputs],
            }

        return {names[run.info.run_id]: facts(run) for run in runs}

    return read


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cmc.txt"
    path.write_text("curve")
    return path


@pytest.fixture
def sent(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> Callable[[str], dict[str, Any]]:
    """Send a whole log in one go and return what the store knows."""

    def send(name: str) -> dict[str, Any]:
        log = tmp_path / name / "events.jsonl"
        log.parent.mkdir()
        write(log, events(name, picture))
        sender = Sender(log, store)
        assert sender.close(PATIENCE, PATIENCE)
        assert (sender.lag, sender.last_error) == (0, None)
        return snapshot(name)

    return send
