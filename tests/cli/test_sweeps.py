"""The commands about sweeps as a user meets them; a sweep itself runs in the tests of `sweep`."""

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
import torch
import yaml
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pytest import MonkeyPatch

from reid_tune import load_sweep
from reid_tune.config.load import build_experiment, with_parameters
from reid_tune.demo import draw_demo_data
from reid_tune.journal.event_log import EventLog
from reid_tune.journal.events import EpochReported, RunEnded, RunSuggested, StageDone, StageStarted
from reid_tune.journal.stages import STAGES
from reid_tune.report import summary
from reid_tune.training.loop import train

from ..helpers.events import sweep_header
from ..helpers.finished_sweep import simulate
from ..helpers.simulated_search import MARGIN, RATE
from ..helpers.simulated_search import NAME as OPTIMIZER

WARMUP = "train.optim.warmup_iters"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in a folder with one sweep: its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    with EventLog(Path("runs/s/events.jsonl")) as log:
        sweep = {"objective": {"metric": "mAP"}, "budget": {"trials": 3}, "space": {"train.seed": {"int": [1, 9]}}}
        log.append(sweep_header(name="s", sweep=sweep, spec={"train.seed": 5}))
        log.append(StageStarted(stage="search"))
        log.append(RunSuggested(run="trials/0000", parameters={}))
        log.append(EpochReported(run="trials/0000", epoch=1, metrics={"mAP": 0.5}))
        log.append(RunEnded(run="trials/0000", state="finished", epoch=1))

    return command


def test_a_report_comes_with_a_page(run: Run) -> None:
    status, out, err = run("report", "s")
    assert (status, err) == (0, "") and "50.0" in out
    assert out.splitlines()[-1] == "page: runs/s/report.html"
    assert "interrupted at search" in Path("runs/s/report.html").read_text()


def test_data_for_programs_come_without_a_page_unless_one_is_asked_for(run: Run) -> None:
    status, out, err = run("report", "s", "--format", "json")
    assert (status, err, json.loads(out)["winner"]) == (0, "", 0)
    assert [path.name for path in Path("runs/s").iterdir()] == ["events.jsonl"]
    status, again, err = run("report", "s", "--format", "json", "--html", "new/page.html")
    assert (status, again, err) == (0, out, "page: new/page.html\n")
    assert Path("new/page.html").is_file() and not Path("runs/s/report.html").exists()


def test_a_page_that_cannot_be_written(run: Run) -> None:
    status, out, err = run("report", "s", "--html", "runs")
    assert (status, out) == (2, "") and err == "reid-tune: --html = 'runs' is a folder: name a file.\n"
    Path("runs/s/report.html").mkdir()
    status, out, err = run("report", "s")
    assert status == 0 and "50.0" in out and err.startswith("no page: ") and "is a folder" in err


def test_a_bundle_that_has_won_is_read_by_every_command(command: Run, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    bundles = [
        {"name": "fast", OPTIMIZER: "AdamW", RATE: {"loguniform": [1e-3, 4e-3]}, WARMUP: {"int": [1, 2]}},
        {"name": "slow", OPTIMIZER: "SGD", RATE: 1e-5, WARMUP: 0},
    ]
    sections = {"bundle": bundles, "space": {MARGIN: {"uniform": [0.2, 0.4]}}, "search": {"sampler": "random"}}
    folder = simulate(tmp_path, trials=9, until="confirm", sections=sections).folder
    sweep, storage = load_sweep(folder), ("--storage", str(folder.parent))
    winner = sweep.trials.loc[sweep.state.stages["confirm"]["winner"]]
    assert winner["bundle"] == "fast" and sweep.trials["bundle"].isna().tolist() == [True, True] + [False] * 7
    optim = sweep.best.train.optim
    assert (optim.name, optim.base_lr, optim.warmup_iters) == ("AdamW", winner[RATE], winner[WARMUP])
    find = Mock(side_effect=summary.find_importances)
    monkeypatch.setattr(summary, "find_importances", find)
    status, out, err = command("report", "simulated", *storage)
    assert (status, err, find.call_count) == (0, "", 1) and "fast" in out and "slow" in out
    again = command("reproduce", f"simulated/{winner.name}", *storage)[1]
    assert f"{OPTIMIZER}=AdamW {RATE}={winner[RATE]}" in again and "bundle=" not in again
    assert command("export-study", "simulated", str(tmp_path / "study.log"), *storage)[0] == 0
    study = optuna.load_study(
        study_name="simulated", storage=JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    )
    parameters = study.trials[int(winner.name)].params
    assert {name: parameters[name] for name in ("bundle", RATE)} == {"bundle": "fast", RATE: winner[RATE]}
    assert study.trials[-1].distributions[RATE] == FloatDistribution(1e-5, 4e-3, log=True)


def test_sweeps_in_all_formats(run: Run) -> None:
    Path("runs/other").mkdir()
    status, out, err = run("sweeps")
    assert (status, err) == (0, "") and "interrupted at search" in out and "1/3" in out
    assert "runs/other holds no sweep" in out
    content = json.loads(run("sweeps", "--format", "json")[1])
    assert [line["name"] for line in content] == ["other", "s"] and content[1]["best"] == 0.5
    assert yaml.safe_load(run("sweeps", "--format", "yaml")[1]) == content
    assert run("sweeps", "--storage", "gone")[0] == 2


def test_logs(run: Run) -> None:
    missing = "reid-tune: the sweep s has no run trials/0007; its trials are 0 to 0.\n"
    assert run("logs", "s/7") == (2, "", missing)
    assert run("logs", "s/0")[0] == run("logs", "s", "--follow")[0] == run("logs", "t/0")[0] == 2
    Path("runs/s/trials/0000").mkdir(parents=True)
    Path("runs/s/trials/0000/log.txt").write_text("one\ntwo")
    assert run("logs", "s/0") == run("logs", "s/0", "--follow") == (0, "one\ntwo", "")
    assert "two" in run("logs", "s")[1]


def test_the_help_of_a_sweep_names_its_options(command: Run) -> None:
    status, out, _ = command("sweep", "--help")
    assert status == 0
    assert all(option in out for option in ("--resume", "--from", "--until", "--dry-run", "--smoke"))


def test_stages_and_modes_are_those_of_a_sweep(command: Run) -> None:
    for option in ("--from", "--until"):
        status, _, err = command("sweep", "sweep.yaml", option, "testing")
        assert status == 2 and all(stage in err for stage in STAGES)
    status, _, err = command("sweep", "sweep.yaml", "--resume", "always")
    assert status == 2 and "never" in err and "auto" in err


def test_a_smoke_test_takes_no_other_options(command: Run) -> None:
    for more in (["--dry-run"], ["--from", "search"], ["--resume", "auto"]):
        status, out, err = command("sweep", "sweep.yaml", "--smoke", *more)
        assert (status, out) == (2, "") and "give no other option than --until" in err
    assert command("sweep", "gone.yaml", "--smoke")[0] == 2


def test_sync_sends_what_it_can_and_names_what_it_cannot(run: Run, tmp_path: Path) -> None:
    with EventLog("runs/t/events.jsonl") as log:
        sweep = {"objective": {"metric": "mAP"}, "budget": {"trials": 1}, "space": {}}
        log.append(sweep_header(name="t", uid="t" * 16, sweep=sweep, spec={"train.seed": 5}, tracking_uri=""))
        log.append(RunSuggested(run="trials/0000", parameters={}))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    status, out, err = run("sync", "nobody", "t", "--to", uri)
    assert (status, out) == (2, f"t: 2 events sent to {uri}\n")
    assert "there is no sweep 'nobody' in" in err and "Traceback" not in err
    status, out, err = run("sync", "t", "--to", "http://127.0.0.1:9")
    assert status == 3 and "the MLflow store http://127.0.0.1:9 does not answer" in err


def test_stop_says_what_will_happen_and_what_cannot(run: Run) -> None:
    assert run("stop", "s/0")[2] == (
        "reid-tune: trial 0 is the spec itself, with which all are compared: it is never stopped.\n"
    )
    for name in ("s", "s/7", "s/confirm/0000-1", "t/1"):
        status, out, err = run("stop", name)
        assert (status, out) == (2, "") and err.count("\n") == 1
    with EventLog(Path("runs/s/events.jsonl")) as log:
        log.append(RunSuggested(run="trials/0001", parameters={}))
    status, out, err = run("stop", "s/1")
    assert (status, out, err) == (0, "no driver is running: trial 1 will be stopped when the sweep is resumed\n", "")
    assert len(list(Path("runs/s/requests").glob("*.json"))) == 1


def test_enqueue_refuses_what_it_can_know(run: Run) -> None:
    assert run("enqueue", "s")[0] == run("enqueue", "t", "train.seed=1")[0] == 2
    assert not Path("runs/s/requests").exists()


class _Log:
    """A reporter that writes a run's epochs into a sweep's log."""

    def __init__(self, log: EventLog, run: str) -> None:
        self.log, self.run = log, run

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None: ...

    def info(self, text: str) -> None: ...

    def report_step(self, step: int, loss: float) -> None: ...

    def report_epoch(self, metrics: Mapping[str, Any]) -> None:
        values = dict(metrics)
        self.log.append(EpochReported(run=self.run, epoch=values.pop("epoch"), metrics=values))


@pytest.fixture
def trained(command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in a folder with the sweep `s`, whose trial 1 and refit were really trained."""
    monkeypatch.chdir(tmp_path)
    draw_demo_data(Path("data"), identities=20, images=4)
    tree = {
        "model": {"backbone": "test_resnet", "input_width": 16, "input_height": 32},
        "dataset": {"train_dataset_dir": str(tmp_path / "data/bounding_box_train"), "batch_size": 16}
        | {"validation": "holdout", "validation_seed": 3},
        "train": {"num_epochs": 2, "deterministic": True, "optim": {"warmup_iters": 0}},
    }
    experiment = build_experiment(tree, {}, "spec")
    with EventLog(Path("runs/s/events.jsonl")) as log:
        sweep = {"objective": {"metric": "mAP"}, "budget": {"trials": 3}, "resources": {"cpus_per_worker": 1}}
        log.append(sweep_header(name="s", sweep=sweep, spec=experiment.parameters()))
        log.append(StageDone(stage="preflight", result={"gpus_per_run": 0}))
        torch.set_num_threads(1)
        for name, changes in (("trials/0001", {}), ("refit/winner", {"dataset.validation": "none"})):
            parameters = {"train.optim.base_lr": 0.002, "model.no_margin": True, **changes}
            log.append(RunSuggested(run=name, parameters=parameters))
            train(with_parameters(experiment, parameters, name), _Log(log, name), tmp_path / name)
            log.append(RunEnded(run=name, state="finished", epoch=2))
    return command


def test_reproduce_prints_the_command(trained: Run) -> None:
    status, out, err = trained("reproduce", "s/1")
    assert (status, err) == (0, "")
    words = shlex.split(out)
    assert (
        words[:5] == ["CUDA_VISIBLE_DEVICES=", "OMP_NUM_THREADS=1", "reid-tune", "train", "-e"]
        and "train.optim.base_lr=0.002" in words
    )
    assert not Path("results").exists()


@pytest.mark.integration
def test_reproduce_trains_the_same(trained: Run) -> None:
    status, out, _ = trained("reproduce", "s/1", "--run", "--format", "json")
    content = json.loads(out)
    assert status == 0 and content["equal"] and content["epoch"] == 2
    assert content["metrics"]["mAP"]["sweep"] == content["metrics"]["mAP"]["again"] and "loss" in content["metrics"]
    status, out, err = trained("reproduce", "s/refit/winner", "--run")
    assert status == 0 and "epoch 2: equal" in out and "mAP" not in out
    assert sorted(path.name for path in Path("results").iterdir()) == ["s-refit-winner", "s-trial-1"]


@pytest.mark.integration
def test_reproduce_says_where_numbers_differ(trained: Run) -> None:
    with EventLog(Path("runs/s/events.jsonl")) as log:
        log.append(EpochReported(run="trials/0001", epoch=2, metrics={"loss": 0.5, "mAP": 0.25}))
    status, out, _ = trained("reproduce", "s/1", "--run")
    assert status == 1 and "epoch 2: not equal" in out and "0.25" in out


def test_reproduce_of_what_has_no_numbers_is_refused(trained: Run) -> None:
    with EventLog(Path("runs/s/events.jsonl")) as log:
        log.append(RunSuggested(run="trials/0002", parameters={}))
    for name in ("s", "s/7", "t/1"):
        assert trained("reproduce", name)[0] == 2
    status, out, err = trained("reproduce", "s/2", "--run")
    assert (status, out) == (2, "") and "has reported no epoch" in err


def test_a_study_is_written_once(command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    simulate(tmp_path, trials=2, until="search")
    status, out, err = command("export-study", "simulated", "study.db")
    assert (status, out) == (0, "study.db\n")
    assert err == "study simulated with 2 trials; show it with: optuna-dashboard sqlite:///study.db\n"
    message = "reid-tune: study.db exists already: name a new file, or remove this one.\n"
    assert command("export-study", "simulated", "study.db") == (2, "", message)
    status, out, err = command("export-study", "t", "new/study.log")
    assert (status, out) == (2, "") and "there is no sweep 't'" in err and not Path("new").exists()
