import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.journal.checksum import add_checksum, read_checked
from reid_tune.journal.events import EpochReported, Event, StagesReopened
from reid_tune.tracking import sender as module
from reid_tune.tracking.projection import Projection
from reid_tune.tracking.sender import Sender, send_all
from reid_tune.tracking.store import client

from .conftest import PATIENCE, wait_until_sent

DEAD = "http://127.0.0.1:9"


class Counted:
    """A description that says how many events it has seen, and links to what it knows."""

    def __init__(self) -> None:
        self.seen = 0

    def apply(self, event: Event) -> bool:
        self.seen += 1
        return not isinstance(event, EpochReported)

    def linked_runs(self) -> list[str]:
        return ["trials/0000", "trials/9999"]

    def markdown(self, address: dict[str, str]) -> str:
        return f"{self.seen} {address}"


def test_the_parent_is_described_by_all_events_so_far(
    store: str, connection: Any, tmp_path: Path, picture: Path, events: Callable, write: Callable
) -> None:
    log, lines = tmp_path / "events.jsonl", events("described", picture)

    def note() -> str:
        experiment = connection.get_experiment_by_name("described").experiment_id
        runs = {run.info.run_name: run for run in connection.search_runs([experiment])}
        page = f"#/experiments/{experiment}/runs/{runs['trials/0000'].info.run_id}"
        return runs["described"].data.tags["mlflow.note.content"].replace(page, "PAGE")

    write(log, lines[:6])
    sender = Sender(log, store, Counted)
    wait_until_sent(sender)
    write(log, lines[6:8])
    wait_until_sent(sender)
    assert sender.close(PATIENCE, PATIENCE)
    assert note() == "6 {'trials/0000': 'PAGE'}", "reports alone do not change it"
    write(log, lines[8:])
    assert Sender(log, store, Counted).close(PATIENCE, PATIENCE)
    assert note() == "23 {'trials/0000': 'PAGE'}"
    (tmp_path / "tracking.cursor.json").unlink()
    send_all(log, store, Counted)
    assert note() == "23 {'trials/0000': 'PAGE'}"


def test_sending_twice_adds_nothing(sent: Callable, store: str, tmp_path: Path, snapshot: Callable) -> None:
    once = sent("twice")
    assert send_all(tmp_path / "twice" / "events.jsonl", store).events == 0
    (tmp_path / "twice" / "tracking.cursor.json").unlink()
    assert send_all(tmp_path / "twice" / "events.jsonl", store).events == 23
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
    assert Sender(log, store).close(PATIENCE, PATIENCE)
    write(log, events(name, picture)[cut:])
    assert send_all(log, store).events == 23 - cut
    assert snapshot(name) == sent(f"one-go-{cut}")


def test_a_lost_store_is_filled_again(sent: Callable, store: str, connection: Any, tmp_path: Path) -> None:
    sent("lost")
    cursor = tmp_path / "lost" / "tracking.cursor.json"
    content = read_checked(cursor.read_bytes())
    cursor.write_bytes(add_checksum(content | {"parent": f"0{content['parent']}"}))
    assert send_all(tmp_path / "lost" / "events.jsonl", store).events == 23


def test_a_deleted_experiment_comes_back(
    sent: Callable, store: str, connection: Any, tmp_path: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    before = sent("deleted")
    connection.delete_experiment(connection.get_experiment_by_name("deleted").experiment_id)
    (tmp_path / "deleted" / "tracking.cursor.json").unlink()
    assert send_all(tmp_path / "deleted" / "events.jsonl", store).events == 23
    assert snapshot("deleted") == before


def test_a_store_that_fails_for_a_while_gets_every_event(
    sent: Callable, monkeypatch: pytest.MonkeyPatch, snapshot: Callable
) -> None:
    undisturbed, apply, calls = sent("undisturbed"), Projection.apply, iter(range(100))

    def failing(self: Projection, event: Event) -> None:
        if next(calls) in (3, 4, 9):
            raise OSError("unreachable")
        apply(self, event)

    monkeypatch.setattr(Projection, "apply", failing)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    assert sent("disturbed") == undisturbed
    assert next(calls) > 23 + 3


@pytest.mark.parametrize("what", ["experiment", "parent", "trials/0000"])
def test_what_is_deleted_in_mid_sweep_comes_back_with_all_its_points(
    what: str,
    store: str,
    connection: Any,
    tmp_path: Path,
    picture: Path,
    events: Callable,
    write: Callable,
    snapshot: Callable,
    sent: Callable,
) -> None:
    name = f"torn-{what.replace('/', '-')}"
    log = tmp_path / "torn" / "events.jsonl"
    log.parent.mkdir()
    lines = events(name, picture)
    write(log, lines[:7])
    sender = Sender(log, store)
    wait_until_sent(sender)
    experiment = connection.get_experiment_by_name(name).experiment_id
    runs = {run.info.run_name: run.info.run_id for run in connection.search_runs([experiment])}
    if what == "experiment":
        connection.delete_experiment(experiment)
    else:
        connection.delete_run(runs[name if what == "parent" else what])
    write(log, lines[7:])
    assert sender.close(PATIENCE, PATIENCE)
    assert "runs that were deleted in the store have been restored" in str(sender.last_error)
    assert snapshot(name) == sent(f"whole-{name}")
    again = {run.info.run_name: run.info.run_id for run in connection.search_runs([experiment])}
    assert runs.items() <= again.items(), "the same runs"


def test_a_run_that_was_deleted_permanently_is_created_again(
    store: str, connection: Any, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    log, lines = tmp_path / "events.jsonl", events("gone", picture)
    from mlflow.tracking._tracking_service.utils import _get_store

    write(log, lines[:7])
    sender = Sender(log, store)
    wait_until_sent(sender)
    before = snapshot("gone")["trials/0000"]["metrics"]
    experiment = connection.get_experiment_by_name("gone").experiment_id
    (run,) = connection.search_runs([experiment], "tags.`reid_tune.run` = 'uid-gone/trials/0000'")
    connection.delete_run(run.info.run_id)
    _get_store(store)._hard_delete_run(run.info.run_id)  # as `mlflow gc` does
    write(log, lines[7:])
    assert sender.close(PATIENCE, PATIENCE)
    after = snapshot("gone")["trials/0000"]
    assert before["val/mAP"] == after["metrics"]["val/mAP"][:2] and len(after["metrics"]["val/mAP"]) == 3
    assert after["parameters"]["model.backbone"] == "resnet_50"


def test_a_fault_sends_again_what_was_under_way_and_nothing_before(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = events("long", picture)
    more = [replace(lines[7], epoch=epoch, time=lines[7].time + epoch) for epoch in range(4, 304)]
    log = tmp_path / "events.jsonl"
    write(log, [*lines[:8], *more, *lines[8:]])
    apply, applied = Projection.apply, list[Event]()

    def failing(self: Projection, event: Event) -> None:
        applied.append(event)
        if len(applied) in (150, 190):
            raise OSError("unreachable")
        apply(self, event)

    monkeypatch.setattr(Projection, "apply", failing)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    assert Sender(log, store).close(PATIENCE, PATIENCE)
    assert len(applied) == 323 + 50 + 15, "25 events follow the first fault, and up to 50 are then under way"


def test_files_that_cannot_be_sent_hold_up_no_metrics_and_come_later(
    tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable, sent: Callable
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "mlartifacts").write_text("where a folder should be")
    log = tmp_path / "files" / "events.jsonl"
    log.parent.mkdir()
    write(log, events("files", picture))
    sender = Sender(log, uri)
    while sender.last_error is None:
        time.sleep(0.01)
        assert sender.lag
    assert "Not a directory" in sender.last_error and sender.lag == 5, "three specs and two pictures"
    assert "MLflow is 5 events behind" in sender.lag_message
    assert not sender.close(60, 0.5)
    runs = snapshot("files", client(uri))
    assert runs["parent"]["status"] == "FINISHED" and len(runs["trials/0000"]["metrics"]["val/mAP"]) == 3
    (tmp_path / "mlartifacts").unlink()
    assert send_all(log, uri).events == 0
    whole = sent("whole-files")
    assert {name: run["files"] for name, run in snapshot("files", client(uri)).items()} == {
        name: run["files"] for name, run in whole.items()
    }


def test_a_run_that_was_made_twice_is_one(
    store: str, connection: Any, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    """As by a server that answered too late."""
    experiment = connection.create_experiment("twins")
    tags = {"reid_tune.sweep": "uid-twins"}
    first, second = (connection.create_run(experiment, 1_700_000_000_250, tags, "twins") for _ in range(2))
    write(tmp_path / "events.jsonl", events("twins", picture))
    send_all(tmp_path / "events.jsonl", store)
    assert snapshot("twins")["parent"]["status"] == "FINISHED"
    left = min(first.info.run_id, second.info.run_id)
    parents = {run.data.tags.get("mlflow.parentRunId") for run in connection.search_runs([experiment])}
    assert parents == {None, left}


class Broken(Counted):
    def markdown(self, address: dict[str, str]) -> str:
        raise RuntimeError("an odd log")


def test_a_description_that_cannot_be_written_holds_up_nothing(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    write(tmp_path / "events.jsonl", events("odd", picture))
    assert Sender(tmp_path / "events.jsonl", store, Broken).close(PATIENCE, PATIENCE)
    assert snapshot("odd")["parent"]["status"] == "FINISHED"


def test_an_event_that_the_store_refuses_is_passed_over(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    lines = events("refused", tmp_path / "no such file")
    log = tmp_path / "events.jsonl"
    write(log, lines)
    sender = Sender(log, store)
    assert sender.close(PATIENCE, PATIENCE)
    assert "no such file no longer exists" in str(sender.last_error)
    assert snapshot("refused")["parent"]["status"] == "FINISHED"


def test_runs_that_a_killed_driver_leaves_unfinished_are_killed_until_it_continues(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable, sent: Callable
) -> None:
    (tmp_path / "cut").mkdir()
    log, lines = tmp_path / "cut" / "events.jsonl", events("cut-short", picture)
    write(log, lines[:13])
    assert send_all(log, store, closed=True).events == 13
    runs = snapshot("cut-short")
    assert {name: run["status"] for name, run in runs.items()} == {
        "parent": "KILLED",
        "trials/0000": "FINISHED",
        "trials/0001": "KILLED",
    }
    assert runs["parent"]["time"][1] == runs["trials/0001"]["time"][1] == 1_700_000_012_250
    write(log, lines[13:])
    assert send_all(log, store, closed=True).events == 10
    assert snapshot("cut-short") == sent("in-one-go")


def test_a_dead_server_neither_blocks_nor_loses(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable, sent: Callable
) -> None:
    (tmp_path / "dead").mkdir()
    log = tmp_path / "dead" / "events.jsonl"
    write(log, events("dead", picture))
    sender = Sender(log, DEAD)
    while sender.last_error is None:
        time.sleep(0.01)
        assert sender.lag == 23
    assert "127.0.0.1" in sender.last_error
    assert not sender.close(0, 0)
    assert sender.lag == 23
    with pytest.raises(InfrastructureError, match="http://127.0.0.1:9 does not answer"):
        send_all(log, DEAD)
    assert send_all(log, store).events == 23
    assert snapshot("dead") == sent("alive")


def test_a_run_that_is_done_again_is_another_run(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    log = tmp_path / "again" / "events.jsonl"
    log.parent.mkdir()
    first = events("again", picture)
    reopened = StagesReopened(stages=["refit"], runs=["trials/0001"])
    run_events = [event for event in first if getattr(event, "run", None) == "trials/0001"]
    suggested = replace(run_events[0], parameters={"train.optim.base_lr": 0.5})
    whole = [*first, reopened, suggested, *run_events[1:]]
    middle = len(first) + 3
    for part in (whole[: len(first) + 1], whole[len(first) + 1 : middle], whole[middle:]):
        write(log, part)
        send_all(log, store)  # Each time a new sender continues in the middle.
    runs = snapshot("again")
    assert set(runs) == {"parent", "trials/0000", "trials/0001", "trials/0001 (2)", "trials/0002"}
    rates = [runs[name]["parameters"]["train.optim.base_lr"] for name in ("trials/0001", "trials/0001 (2)")]
    assert rates == ["0.001", "0.5"]
    assert runs["trials/0001 (2)"]["metrics"] == runs["trials/0001"]["metrics"]
