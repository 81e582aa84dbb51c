import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_tune.errors import InfrastructureError
from reid_tune.tracking import sender as module
from reid_tune.tracking.projection import Projection
from reid_tune.tracking.sender import Sender, send_all
from reid_tune.tracking.store import client

from .conftest import ENVIRONMENT

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
        assert sender.close(PATIENCE, PATIENCE)
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
    assert parent["time"] == (1_700_000_000_250, 1_700_000_022_250)
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
    named = {"train/loss", "train/loss/identity", "train/learning_rate", "train/images_per_second"}
    named |= {"val/mAP", "val/Rank-1", "train/memory_megabytes", "system/cpu_utilization_percentage"}
    assert metrics.keys() == named
    times = [1_700_000_005_250, 1_700_000_006_250, 1_700_000_007_250]
    assert metrics["val/mAP"] == [(step, time, 0.1 * step) for step, time in zip((1, 2, 3), times, strict=True)]


def test_every_run_has_its_data_and_its_spec(sent: Callable, connection: Any) -> None:
    runs = sent("inputs")
    assert {tuple(run["data"]) for run in runs.values()} == {
        (("market1501/bounding_box_train", "0123abcd" * 4, "training"),)
    }
    experiment = connection.get_experiment_by_name("inputs").experiment_id
    (run,) = connection.search_runs([experiment], "tags.`reid_tune.run` = 'uid-inputs/trials/0001'")
    spec = yaml.safe_load(mlflow_text(connection, run, "spec.yaml"))
    assert spec["train"]["optim"] == {"base_lr": 0.001, "lr_steps": [5], "name": "Adam"}
    assert "encryption_key" not in spec and "results_dir" not in spec


def mlflow_text(connection: Any, run: Any, path: str) -> str:
    return (Path(run.info.artifact_uri) / path).read_text()


def test_the_results_on_test_are_metrics_of_the_refit_and_of_the_parent(
    store: str, connection: Any, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    plain, ranked = {"mAP": 0.5, "Rank-1": 0.75, "queries": 9, "protocol": "text"}, {"mAP": 0.625}
    models = {"winner": {"plain": plain, "re_ranked": ranked, "checkpoint": plain}, "trial0": {"plain": {"mAP": 0.25}}}
    digest = {"test folders": "f" * 32, "other": "e" * 32}
    result = {"models": models, "data": digest, "looks": {"test folders": 3, "other": 1}}
    lines = events("tested", picture)
    for number, run in enumerate(("refit/winner", "refit/trial0")):
        lines.append({"time": 1_700_000_030.0 + number, "kind": "suggested", "run": run, "parameters": {}})
    lines.append({"time": 1_700_000_040.0, "kind": "stage", "stage": "test", "state": "done", "result": result})
    write(tmp_path / "events.jsonl", lines)
    send_all(tmp_path / "events.jsonl", store)
    runs = snapshot("tested")
    wanted = {"test/mAP": 0.5, "test/Rank-1": 0.75, "test/re-ranked/mAP": 0.625}
    for name in ("parent", "refit/winner"):
        assert {key: points[0][2] for key, points in runs[name]["metrics"].items()} == wanted
    assert runs["refit/trial0"]["metrics"] == {"test/mAP": [(0, 1_700_000_040_000, 0.25)]}
    assert sorted((entry for entry in runs["parent"]["data"] if entry[2] == "test"), reverse=True) == [
        ("test folders", "f" * 32, "test"),
        ("other", "e" * 32, "test"),
    ]


def test_the_sweep_is_a_line_among_others_by_its_winner_and_opens_with_its_trials(
    store: str, connection: Any, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    lines = events("won", picture)
    lines[0]["sweep"] = {"objective": {"metric": "mINP"}, "space": {"train.optim.base_lr": {}, "re_ranking.k1": {}}}
    lines[1] |= {"user": "mina", "command": ["/bin/reid-tune", "sweep", "a.yaml"]}
    lines[1]["environment"] = ENVIRONMENT | {"commit": "c0ffee"}
    lines[8]["parameters"]["train.optim.base_lr"] = 0.00123456789
    row = {"number": 1, "mean": 0.375}
    result = {"winner": 1, "trials": [{"number": 0, "mean": 0.25}, row]}
    lines.append({"time": 1_700_000_040.0, "kind": "stage", "stage": "confirm", "state": "done", "result": result})
    write(tmp_path / "events.jsonl", lines)
    send_all(tmp_path / "events.jsonl", store)
    runs = snapshot("won")
    parent, trial = runs["parent"], runs["trials/0001"]
    assert parent["metrics"] == {"confirm/mINP": [(0, 1_700_000_040_000, 0.375)]}
    assert (parent["tags"]["winner"], parent["tags"]["search.train.optim.base_lr"]) == ("trials/0001", "0.001235")
    assert trial["parameters"]["train.optim.base_lr"] == "0.00123456789"
    for run in (parent, trial):
        tags = {key: run["tags"][f"mlflow.{key}"] for key in ("user", "source.name", "source.git.commit")}
        assert tags == {"user": "mina", "source.name": "reid-tune sweep a.yaml", "source.git.commit": "c0ffee"}
    view = json.loads(connection.get_experiment_by_name("won").tags["mlflow.sharedViewState.leaderboard"])
    state = json.loads(view["state"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val/mINP`", False)
    assert state["selectedColumns"] == ["metrics.`val/mINP`", "tags.`state`", "tags.`search.train.optim.base_lr`"]
    assert trial["tags"]["kind"] in state["searchFilter"]


def test_why_a_run_was_started_again_and_why_a_sweep_ended_are_tags(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    lines = events("reasons", picture)[:7]
    lines.append({"kind": "setback", "run": "trials/0000", "failure": "lost_worker", "reason": "it died"})
    lines.append({"kind": "closed", "status": "FAILED", "reason": "the disk is full"})
    lines.append({**lines[1], "pid": 2})
    for number, event in enumerate(lines[7:]):
        event["time"] = 1_700_000_020.0 + number
    write(tmp_path / "events.jsonl", lines[:9])
    send_all(tmp_path / "events.jsonl", store)
    runs = snapshot("reasons")
    assert runs["trials/0000"]["tags"]["setback"] == "lost_worker: it died"
    assert runs["trials/0000"]["status"] == "KILLED"
    assert (runs["parent"]["tags"]["state"], runs["parent"]["tags"]["reason"]) == ("failed", "the disk is full")
    write(tmp_path / "events.jsonl", lines[9:])
    send_all(tmp_path / "events.jsonl", store)
    parent = snapshot("reasons")["parent"]
    assert (parent["status"], parent["tags"]["state"], parent["tags"]["reason"]) == ("RUNNING", "running", "")


class Counted:
    """A description that says how many events it has seen, and links to what it knows."""

    def __init__(self) -> None:
        self.seen = 0

    def apply(self, event: dict[str, Any]) -> bool:
        self.seen += 1
        return event["kind"] != "report"

    def named(self) -> list[str]:
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
    while sender.lag:
        assert sender.last_error is None
    write(log, lines[6:8])
    while sender.lag:
        assert sender.last_error is None
    assert sender.close(PATIENCE, PATIENCE)
    assert note() == "6 {'trials/0000': 'PAGE'}", "reports alone do not change it"
    write(log, lines[8:])
    assert Sender(log, store, Counted).close(PATIENCE, PATIENCE)
    assert note() == "23 {'trials/0000': 'PAGE'}"
    (tmp_path / "tracking.cursor.json").unlink()
    send_all(log, store, Counted)
    assert note() == "23 {'trials/0000': 'PAGE'}"


def test_artifacts_lie_beside_the_store(sent: Callable, store: str, connection: Any) -> None:
    runs = sent("artifacts")
    assert runs["parent"]["files"] == ["cmc.txt"]
    assert runs["trials/0001"]["files"] == ["spec.yaml"]
    experiment = connection.get_experiment_by_name("artifacts")
    assert experiment.artifact_location == str(Path(store.removeprefix("sqlite:///")).parent / "mlartifacts/artifacts")
    (trial,) = connection.search_runs([experiment.experiment_id], "tags.`reid_tune.run` = 'uid-artifacts/trials/0000'")
    assert (Path(trial.info.artifact_uri) / "plots/cmc.txt").read_text() == "curve"


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
    cursor.write_text(cursor.read_text().replace('"parent": "', '"parent": "0'))
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

    def failing(self: Projection, event: dict[str, Any]) -> None:
        if next(calls) in (3, 4, 9):
            raise OSError("away")
        apply(self, event)

    monkeypatch.setattr(Projection, "apply", failing)
    monkeypatch.setattr(module, "POLL", 0.01)
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
    while sender.lag:
        assert sender.last_error is None
    experiment = connection.get_experiment_by_name(name).experiment_id
    runs = {run.info.run_name: run.info.run_id for run in connection.search_runs([experiment])}
    if what == "experiment":
        connection.delete_experiment(experiment)
    else:
        connection.delete_run(runs[name if what == "parent" else what])
    write(log, lines[7:])
    assert sender.close(PATIENCE, PATIENCE)
    assert "what somebody has deleted there was brought back" in str(sender.last_error)
    assert snapshot(name) == sent(f"whole-{name}")
    again = {run.info.run_name: run.info.run_id for run in connection.search_runs([experiment])}
    assert runs.items() <= again.items(), "the same runs"


def test_a_run_that_is_gone_for_good_is_made_anew(
    store: str, connection: Any, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    log, lines = tmp_path / "events.jsonl", events("gone", picture)
    write(log, lines[:7])
    sender = Sender(log, store)
    while sender.lag:
        assert sender.last_error is None
    before = snapshot("gone")["trials/0000"]["metrics"]
    experiment = connection.get_experiment_by_name("gone").experiment_id
    (run,) = connection.search_runs([experiment], "tags.`reid_tune.run` = 'uid-gone/trials/0000'")
    connection.delete_run(run.info.run_id)
    subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store, "--run-ids", run.info.run_id],
        check=True,
        capture_output=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": store},
    )
    write(log, lines[7:])
    assert sender.close(PATIENCE, PATIENCE)
    after = snapshot("gone")["trials/0000"]
    assert before["val/mAP"] == after["metrics"]["val/mAP"][:2] and len(after["metrics"]["val/mAP"]) == 3
    assert after["parameters"]["model.backbone"] == "resnet_50"


def test_a_fault_sends_again_what_was_under_way_and_nothing_before(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = events("long", picture)
    more = [{**lines[7], "epoch": epoch, "time": lines[7]["time"] + epoch} for epoch in range(4, 304)]
    log = tmp_path / "events.jsonl"
    write(log, [*lines[:8], *more, *lines[8:]])
    apply, applied = Projection.apply, list[int]()

    def failing(self: Projection, event: dict[str, Any]) -> None:
        applied.append(event.get("epoch", 0))
        if len(applied) in (150, 190):
            raise OSError("away")
        apply(self, event)

    monkeypatch.setattr(Projection, "apply", failing)
    monkeypatch.setattr(module, "POLL", 0.01)
    assert Sender(log, store).close(PATIENCE, PATIENCE)
    assert len(applied) == 323 + 50 + 40


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
        assert sender.lag
    assert "Not a directory" in sender.last_error and sender.lag == 5, "three specs and two pictures"
    assert "MLflow is 5 events behind" in sender.words
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
    assert "no such file is no longer there" in str(sender.last_error)
    assert snapshot("refused")["parent"]["status"] == "FINISHED"


def test_what_a_killed_driver_leaves_open_is_said_to_be_killed_until_it_goes_on(
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
