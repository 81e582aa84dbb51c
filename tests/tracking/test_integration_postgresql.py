"""Eight sweeps at once in one MLflow server on PostgreSQL, which has several writers where SQLite has one."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.events import DriverEnded, Event, TrainingEpoch, TrainingHeader
from reid_tune.tracking.sender import send_all
from reid_tune.tracking.store import client

from ..helpers.events import driver_started
from ..helpers.mlflow_servers import mlflow_server
from ..helpers.postgresql import PostgreSQL, needs_postgresql

pytestmark = [pytest.mark.integration, needs_postgresql]

SENDERS = 8
EPOCHS = 5


@pytest.fixture(scope="module")
def uri(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder, backend=postgresql.new_database(), options=("--workers", "2")) as server:
        yield server.uri


def send_at_once(logs: list[Path], uri: str) -> None:
    """Send each log in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reid_tune.tracking.sender", "mlflow"])
    processes = [context.Process(target=send_all, args=(log, uri)) for log in logs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(logs)


def test_eight_sweeps_at_once_are_as_complete_as_one_after_the_other(
    uri: str, store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    names = [f"postgresql-{number}" for number in range(SENDERS)]
    logs = [tmp_path / name / EVENTS for name in names]
    for name, log in zip(names, logs, strict=True):
        log.parent.mkdir()
        write(log, events(name, picture))
    send_at_once(logs, uri)
    for name, log in zip(names, logs, strict=True):
        (log.parent / "tracking.cursor.json").unlink()
        send_all(log, store)
        assert snapshot(name, client(uri)) == snapshot(name, client(store))
    experiments = [experiment.name for experiment in client(uri).search_experiments()]
    assert sorted(experiments) == sorted(["Default", *names])


def training(number: int) -> list[Event]:
    """The events of a training in the experiment that it shares with others."""
    made: list[Event] = [
        TrainingHeader(
            name=f"run {number}", experiment="shared", uid=f"uid-{number}", tracking_uri="", spec={"train.seed": number}
        ),
        driver_started(pid=1, host="here", command=[]),
        *(TrainingEpoch(epoch=epoch, metrics={"loss": number + 1 / epoch}, usage={}) for epoch in range(1, EPOCHS + 1)),
        DriverEnded(status="FINISHED"),
    ]
    return [replace(event, time=1_700_000_000.25 + second) for second, event in enumerate(made)]


def test_eight_trainings_at_once_make_one_experiment(uri: str, tmp_path: Path, write: Callable) -> None:
    logs = [tmp_path / str(number) / EVENTS for number in range(SENDERS)]
    for number, log in enumerate(logs):
        log.parent.mkdir()
        write(log, training(number))
    send_at_once(logs, uri)
    connection = client(uri)
    (experiment,) = connection.search_experiments(filter_string="name = 'shared'")
    runs = {run.info.run_name: run for run in connection.search_runs([experiment.experiment_id])}
    assert sorted(runs) == [f"run {number}" for number in range(SENDERS)]
    for number in range(SENDERS):
        run = runs[f"run {number}"]
        assert (run.info.status, run.data.params["train.seed"]) == ("FINISHED", str(number))
        history = connection.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((point.step, point.value) for point in history) == [
            (epoch, number + 1 / epoch) for epoch in range(1, EPOCHS + 1)
        ]
