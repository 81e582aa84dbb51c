"""What `sync` does with a sweep that was killed, or is at work."""

from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.journal.event_log import EventLog
from reid_tune.journal.lease import Lease
from reid_tune.storage.s3 import S3Store
from reid_tune.sweep.mlflow_sync import sync
from reid_tune.tracking.store import client

from ..helpers.finished_sweep import simulate

TRIALS = 3


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('sync')}/mlflow.db"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a sweep whose driver died after its search."""
    return simulate(tmp_path_factory.mktemp("killed"), trials=TRIALS, until="search").folder.parent


def test_a_killed_sweep_is_sent_and_said_to_be_killed(killed: Path, uri: str) -> None:
    (found,) = sync("simulated", str(killed), uri, print)
    events = found.sent.events
    assert events > 3 * TRIALS and str(found) == f"simulated: {events} events sent to {uri}"
    connection = client(uri)
    experiment = connection.get_experiment_by_name("simulated")
    runs = {run.info.run_name: run for run in connection.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"simulated", *(f"trials/{number:04d}" for number in range(TRIALS))}
    assert runs["simulated"].info.status == "KILLED" and runs["trials/0000"].info.status == "FINISHED"
    assert "best mAP" in runs["simulated"].data.tags["mlflow.note.content"].splitlines()[0]
    assert "`val/mAP`" in experiment.tags["mlflow.sharedViewState.leaderboard"]
    assert str(sync("simulated", str(killed), uri, print)[0]) == f"simulated: nothing was left to send to {uri}"


def test_a_sweep_at_work_sends_by_itself(killed: Path, uri: str) -> None:
    with EventLog(killed / "simulated" / "events.jsonl"), pytest.raises(InputError, match="in use by another running"):
        sync("simulated", str(killed), uri, print)


def test_what_cannot_be_sent_is_one_sentence(killed: Path, uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no sweep 'other' in .*; sweeps there: simulated"):
        sync("other", str(killed), uri, print)
    with pytest.raises(InfrastructureError, match="the MLflow store http://127.0.0.1:9 does not answer"):
        sync("simulated", str(killed), "http://127.0.0.1:9", print)
    with pytest.raises(InputError, match="htp"):
        sync("simulated", str(killed), "htp://somewhere", print)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "events.jsonl").touch()
    with pytest.raises(InputError, match="empty has not started"):
        sync("empty", str(tmp_path), uri, print)


def test_a_sweep_in_a_bucket_is_sent_once_and_its_place_kept_there(
    killed: Path, uri: str, url: str, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    bucket = S3Store(url)
    bucket.upload(killed / "simulated" / "events.jsonl", "simulated/events.jsonl")
    store = uri.replace("mlflow.db", "bucket.db")
    (found,) = sync("simulated", url, store, print)
    assert found.sent.events > 3 * TRIALS and bucket.stat("simulated/tracking.cursor.json")
    assert bucket.stat("simulated/driver.json") is None, "others may drive"
    assert sync("simulated", url, store, print)[0].sent.events == 0
    with Lease(bucket / "simulated", "another machine"), pytest.raises(InputError, match="is driven by process"):
        sync("simulated", url, store, print)
