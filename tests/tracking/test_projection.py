"""Meaning of the events of a log in MLflow."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from reid_tune.journal.events import (
    AttemptStarted,
    DriverEnded,
    RunPaused,
    RunRetried,
    RunSuggested,
    StageDone,
    WorkerStarted,
)
from reid_tune.tracking.sender import send_all

from .conftest import ENVIRONMENT


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
    result = {"models": models, "data": digest, "test_evaluations": {"test folders": 3, "other": 1}}
    lines = events("tested", picture)
    for number, run in enumerate(("refit/winner", "refit/trial0")):
        lines.append(RunSuggested(time=1_700_000_030.0 + number, run=run, parameters={}))
    lines.append(StageDone(time=1_700_000_040.0, stage="test", result=result))
    write(tmp_path / "events.jsonl", lines)
    send_all(tmp_path / "events.jsonl", store)
    runs = snapshot("tested")
    expected = {"test/mAP": 0.5, "test/Rank-1": 0.75, "test/re-ranked/mAP": 0.625}
    for name in ("parent", "refit/winner"):
        assert {key: points[0][2] for key, points in runs[name]["metrics"].items()} == expected
    assert runs["refit/trial0"]["metrics"] == {"test/mAP": [(0, 1_700_000_040_000, 0.25)]}
    assert sorted((entry for entry in runs["parent"]["data"] if entry[2] == "test"), reverse=True) == [
        ("test folders", "f" * 32, "test"),
        ("other", "e" * 32, "test"),
    ]


def test_the_sweep_is_a_line_among_others_by_its_winner_and_opens_with_its_trials(
    store: str, connection: Any, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    lines = events("won", picture)
    sweep = {"objective": {"metric": "mINP"}, "space": {"train.optim.base_lr": {}, "re_ranking.k1": {}}}
    lines[0] = replace(lines[0], sweep=sweep)
    command = ["/bin/reid-tune", "sweep", "a.yaml"]
    lines[1] = replace(lines[1], user="mina", command=command, environment=ENVIRONMENT | {"commit": "c0ffee"})
    lines[8].parameters["train.optim.base_lr"] = 0.00123456789
    row = {"number": 1, "mean": 0.375}
    result = {"winner": 1, "trials": [{"number": 0, "mean": 0.25}, row]}
    lines.append(StageDone(time=1_700_000_040.0, stage="confirm", result=result))
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
    time = 1_700_000_020.0
    lines.append(RunRetried(time=time, run="trials/0000", failure="lost_worker", reason="it died"))
    lines.append(DriverEnded(time=time + 1, status="FAILED", reason="the disk is full"))
    lines.append(replace(lines[1], time=time + 2, pid=2))
    write(tmp_path / "events.jsonl", lines[:9])
    send_all(tmp_path / "events.jsonl", store)
    runs = snapshot("reasons")
    assert runs["trials/0000"]["tags"]["retry"] == "lost_worker: it died"
    assert runs["trials/0000"]["status"] == "KILLED"
    assert (runs["parent"]["tags"]["state"], runs["parent"]["tags"]["reason"]) == ("failed", "the disk is full")
    write(tmp_path / "events.jsonl", lines[9:])
    send_all(tmp_path / "events.jsonl", store)
    parent = snapshot("reasons")["parent"]
    assert (parent["status"], parent["tags"]["state"], parent["tags"]["reason"]) == ("RUNNING", "running", "")


def test_a_paused_run_has_ended_until_it_continues(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    lines = events("paused", picture)[:7]
    time = 1_700_000_020.0
    lines.append(RunPaused(time=time, run="trials/0000", epoch=2, reason="budget.hours is spent", limit="hours"))
    lines.append(DriverEnded(time=time + 1, status="FINISHED"))
    assert isinstance(attempt := lines[4], AttemptStarted)
    lines += [replace(lines[1], time=time + 2, pid=2), replace(attempt, time=time + 3, attempt=2)]
    write(tmp_path / "events.jsonl", lines[:9])
    send_all(tmp_path / "events.jsonl", store)
    run = snapshot("paused")["trials/0000"]
    assert (run["status"], run["tags"]["state"]) == ("FINISHED", "paused")
    assert run["tags"]["pause"] == "budget.hours is spent"
    write(tmp_path / "events.jsonl", lines[9:])
    send_all(tmp_path / "events.jsonl", store)
    run = snapshot("paused")["trials/0000"]
    assert (run["status"], run["tags"]["state"]) == ("RUNNING", "running")


def test_the_time_that_a_run_has_waited_for_its_resources_is_a_tag(
    store: str, tmp_path: Path, picture: Path, events: Callable, write: Callable, snapshot: Callable
) -> None:
    lines = events("waited", picture)[:5]
    assert isinstance(attempt := lines[4], AttemptStarted)
    starts = [WorkerStarted(time=attempt.time + 60, run=attempt.run)]
    starts += [
        replace(attempt, time=attempt.time + 100, attempt=2),
        WorkerStarted(time=attempt.time + 130.5, run=attempt.run),
    ]
    write(tmp_path / "events.jsonl", lines + starts)
    send_all(tmp_path / "events.jsonl", store)
    assert snapshot("waited")["trials/0000"]["tags"]["waiting_seconds"] == "90.5"


def test_artifacts_are_stored_next_to_the_store(sent: Callable, store: str, connection: Any) -> None:
    runs = sent("artifacts")
    assert runs["parent"]["files"] == ["cmc.txt"]
    assert runs["trials/0001"]["files"] == ["spec.yaml"]
    experiment = connection.get_experiment_by_name("artifacts")
    assert experiment.artifact_location == str(Path(store.removeprefix("sqlite:///")).parent / "mlartifacts/artifacts")
    (trial,) = connection.search_runs([experiment.experiment_id], "tags.`reid_tune.run` = 'uid-artifacts/trials/0000'")
    assert (Path(trial.info.artifact_uri) / "plots/cmc.txt").read_text() == "curve"
