from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.tracking import sender as module
from reid_tune.tracking.projection import Projection
from reid_tune.tracking.sender import Sender, send_all

PATIENCE = 120
DEAD = "http://127.0.0.1:9"


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
        assert sender.close(PATIENCE)
        assert (sender.lag, sender.last_error) == (0, None)
        return snapshot(name)

    return send


def test_a_sweep_is_a_parent_run_with_nested_runs(sent: Callable) -> None:
    runs = sent("whole")
    assert set(runs) == {"parent", "trials/0000", "trials/0001", "trials/0002"}
    parent = runs.pop("parent")
    assert parent["status"] == "FINISHED"
    assert parent["tags"]["reid_tune.sweep"] == "UID"
    assert parent["tags"]["model"] == "m/1"
    assert parent["tags"]["stage"] == "register done"
    assert parent["time"] == (1_700_000_000_250, 1_700_000_021_250)
    assert {run["tags"]["parent"] for run in runs.values()} == {"parent"}
    assert runs["trials/0001"]["tags"]["reid_tune.run"] == "UID/trials/0001"
    assert [runs[f"trials/000{number}"]["status"] for number in range(3)] == ["FINISHED", "FINISHED", "FAILED"]
    assert [runs[f"trials/000{number}"]["tags"]["state"] for number in range(3)] == ["finished", "stopped", "failed"]
    assert runs["trials/0002"]["tags"]["reason"] == "out of memory"


def test_parameters_are_the_spec_with_the_suggestion_and_no_secret(sent: Callable) -> None:
    runs = sent("parameters")
    first, second = runs["trials/0000"], runs["trials/0001"]
    assert first["parameters"]["train.optim.lr_steps"] == "[40, 70]"
    assert first["parameters"]["model.no_margin"] == "false"
    assert first["parameters"]["model.backbone"] == "resnet_50"
    assert second["parameters"]["train.optim.lr_steps"] == "[5]"
    assert second["parameters"]["train.optim.base_lr"] == "0.001"
    assert len(first["parameters"]) == 6 + 120
    assert first["parameters"].keys() == second["parameters"].keys()
    assert "very secret" not in str(runs)
    assert not [key for key in first["parameters"] if "results_dir" in key or "encryption" in key]
    searched = {key: value for key, value in second["tags"].items() if key.startswith("search.")}
    assert searched == {"search.train.optim.base_lr": "0.001", "search.train.optim.lr_steps": "[5]"}


def test_metrics_have_the_epoch_and_the_time_of_their_event(sent: Callable) -> None:
    metrics = sent("metrics")["trials/0000"]["metrics"]
    assert metrics.keys() == {"loss", "loss/identity", "mAP", "Rank-1"}
    times = [1_700_000_005_250, 1_700_000_006_250, 1_700_000_007_250]
    assert metrics["mAP"] == [(step, time, 0.1 * step) for step, time in zip((1, 2, 3), times, strict=True)]


def test_artifacts_lie_beside_the_store(sent: Callable, store: str, connection: Any) -> None:
    assert sent("artifacts")["parent"]["files"] == ["cmc.txt"]
    experiment = connection.get_experiment_by_name("artifacts")
    assert experiment.artifact_location == str(Path(store.removeprefix("sqlite:///")).parent / "mlartifacts/artifacts")
    (trial,) = connection.search_runs([experiment.experiment_id], "tags.`reid_tune.run` = 'uid-artifacts/trials/0000'")
    assert (Path(trial.info.artifact_uri) / "plots/cmc.txt").read_text() == "curve"


def test_sending_twice_adds_nothing(sent: Callable, store: str, tmp_path: Path, snapshot: Callable) -> None:
    once = sent("twice")
    assert send_all(tmp_path / "twice" / "events.jsonl", store) == 0
    (tmp_path / "twice" / "tracking.cursor.json").unlink()
    assert send_all(tmp_path / "twice" / "events.jsonl", store) == 22
    assert snapshot("twice") == once


@pytest.mark.parametrize("cut", [1, 6, 14])
def test_resuming_in_the_middle_equals_one_go(
    cut: int,
    sent: Callable,
    store: str,
    tmp_path: Path,
    picture: Path,
    events: Callable,
    write: Callable,
    snapshot: Callable,
) -> None:
    (tmp_path / "parts").mkdir()
    log, name = tmp_path / "parts" / "events.jsonl", f"parts-{cut}"
    write(log, events(name, picture)[:cut])
    assert Sender(log, store).close(PATIENCE)
    write(log, events(name, picture)[cut:])
    assert send_all(log, store) == 22 - cut
    assert snapshot(name) == sent(f"one-go-{cut}")


def test_a_lost_store_is_filled_again(sent: Callable, store: str, connection: Any, tmp_path: Path) -> None:
    sent("lost")
    cursor = tmp_path / "lost" / "tracking.cursor.json"
    cursor.write_text(cursor.read_text().replace('"parent": "', '"parent": "0'))
    assert send_all(tmp_path / "lost" / "events.jsonl", store) == 22


def test_a_deleted_experiment_comes_back(
    sent: Callable, store: str, connection: Any, tmp_path: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    before = sent("deleted")
    connection.delete_experiment(connection.get_experiment_by_name("deleted").experiment_id)
    (tmp_path / "deleted" / "tracking.cursor.json").unlink()
    assert send_all(tmp_path / "deleted" / "events.jsonl", store) == 22
    assert snapshot("deleted") == before


def test_a_store_that_fails_for_a_while_gets_every_event(
    sent: Callable, monkeypatch: pytest.MonkeyPatch, snapshot: Callable
) -> None:
    undisturbed, apply, calls = sent("undisturbed"), Projection.apply, iter(range(100))

    def failing(self: Projection, event: dict[str, Any]) -> None:
        if next(calls) in (3, 4, 9):
            raise OSError("away")
        apply(self, event)

    monkeypatch.setattr(Projection, "apply", failing)
    monkeypatch.setattr(module, "POLL", 0.01)
    assert sent("disturbed") == undisturbed
    assert next(calls) == 22 + 3


def test_an_event_that_the_store_refuses_is_passed_over(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    lines = events("refused", tmp_path / "no such file")
    log = tmp_path / "events.jsonl"
    write(log, lines)
    sender = Sender(log, store)
    assert sender.close(PATIENCE)
    assert "no such file is no longer there" in str(sender.last_error)
    assert snapshot("refused")["parent"]["status"] == "FINISHED"


def test_finish_ends_the_parent_after_everything_else(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    log = tmp_path / "events.jsonl"
    write(log, events("killed", picture)[:8])
    sender = Sender(log, store)
    sender.finish("KILLED")
    assert sender.close(PATIENCE)
    runs = snapshot("killed")
    assert runs["parent"]["status"] == "KILLED"
    assert len(runs["trials/0000"]["metrics"]["mAP"]) == 3


def test_a_dead_server_neither_blocks_nor_loses(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable, sent: Callable
) -> None:
    (tmp_path / "dead").mkdir()
    log = tmp_path / "dead" / "events.jsonl"
    write(log, events("dead", picture))
    sender = Sender(log, DEAD)
    while sender.last_error is None:
        assert sender.lag == 22
    assert "127.0.0.1" in sender.last_error
    assert not sender.close(0)
    assert sender.lag == 22
    with pytest.raises(InfrastructureError, match="http://127.0.0.1:9 does not answer"):
        send_all(log, DEAD)
    assert send_all(log, store) == 22
    assert snapshot("dead") == sent("alive")


def test_a_run_that_is_done_again_is_another_run(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    log = tmp_path / "again" / "events.jsonl"
    log.parent.mkdir()
    first = events("again", picture)
    reopened = {"kind": "reopened", "stages": ["refit"], "runs": ["trials/0001"]}
    own = [event for event in first if event.get("run") == "trials/0001" and event["kind"] != "artifact"]
    suggested = {**own[0], "parameters": {"train.optim.base_lr": 0.5}}
    whole = [*first, reopened, suggested, *own[1:]]
    middle = len(first) + 3
    for part in (whole[: len(first) + 1], whole[len(first) + 1 : middle], whole[middle:]):
        write(log, part)
        send_all(log, store)  # Each time a new sender goes on in the middle.
    runs = snapshot("again")
    assert set(runs) == {"parent", "trials/0000", "trials/0001", "trials/0001 (2)", "trials/0002"}
    rates = [runs[name]["parameters"]["train.optim.base_lr"] for name in ("trials/0001", "trials/0001 (2)")]
    assert rates == ["0.001", "0.5"]
    assert runs["trials/0001 (2)"]["metrics"] == runs["trials/0001"]["metrics"]
