from pathlib import Path

import pytest

from reid_tune.journal.events import StageDone
from reid_tune.journal.requests import pending_requests, submit_request
from reid_tune.search.asha import Rungs
from reid_tune.storage.object_store import LocalStore
from reid_tune.sweep.stages.search import TrialSource

from ..helpers.simulated_driver import (
    drive,
    make_sweep,
    study_of,
)
from ..helpers.simulated_search import LEVELS, RATE, begin, searched, start, wait_in

pytestmark = pytest.mark.usefixtures("no_fsync")


def test_trial_0_is_the_spec(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    source, journal = start(sweep, tmp_path / "runs/x")
    attempt = source.next_attempt()
    assert attempt is not None and attempt.run == "trials/0000"
    assert attempt.experiment == sweep.experiment
    assert journal.state.runs["trials/0000"].parameters == {}
    assert (attempt.folder, attempt.resume) == (tmp_path / "runs/x/trials/0000/attempt-1", None)


def test_a_suggestion_changes_the_searched_keys_only(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    source, journal = start(sweep, tmp_path / "x")
    *_, attempt = [source.next_attempt() for _ in range(5)]
    assert attempt is not None
    parameters = journal.state.runs["trials/0004"].parameters
    assert list(parameters) == list(sweep.file.space)
    base, trial = sweep.experiment.parameters(), attempt.experiment.parameters()
    assert trial == base | parameters
    assert 1e-4 <= parameters["train.optim.base_lr"] <= 1e-2 and parameters["train.optim.warmup_iters"] in (0, 1, 2)


def test_the_budget_is_kept(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path, budget={"trials": 3}), tmp_path / "x", 3)
    assert source.next_attempt() is None and not source.is_done()
    for number in range(3):
        source.report(f"trials/{number:04d}", {"failed": "x", "failure": "error"})
    assert source.is_done() and source.next_attempt() is None


def test_initial_points_come_after_trial_0_and_count(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 4})
    given = [{"parameters": {RATE: 0.001 * number}, "origin": f"start_from[{number}]"} for number in (1, 2)]
    journal = begin(sweep, tmp_path / "x")
    journal.emit(StageDone(stage="preflight", result={"initial_points": given}))
    drive(TrialSource(sweep, journal, Rungs(LEVELS)))
    trials = journal.state.trials
    assert [trial.origin for trial in trials] == ["spec", "start_from[1]", "start_from[2]", "sampler"]
    assert [trial.parameters for trial in trials[1:3]] == [{RATE: 0.001}, {RATE: 0.002}]


def test_a_user_s_trial_is_the_next_one_and_beyond_the_budget(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 3})
    source, journal = wait_in(sweep, tmp_path / "x", 2)
    submit_request(LocalStore(tmp_path / "x"), "enqueue", {RATE: 0.004})
    attempt = source.next_attempt()
    assert attempt is not None and attempt.experiment.train.optim.base_lr == 0.004
    assert journal.state.runs["trials/0002"].origin == "user" and not pending_requests(tmp_path / "x")
    submit_request(LocalStore(tmp_path / "x"), "enqueue", {RATE: 0.005})
    assert source.end_reason() == "trials" and not source.is_done()
    assert source.next_attempt() is not None and source.next_attempt() is None
    assert [trial.origin for trial in journal.state.trials] == ["spec", "sampler", "user", "user"]


def test_a_request_is_applied_once_though_its_file_stays(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 2})
    source, journal = wait_in(sweep, tmp_path / "x", 1)
    path = tmp_path / "x" / submit_request(LocalStore(tmp_path / "x"), "enqueue", {RATE: 0.004})
    content = path.read_bytes()
    assert source.next_attempt() is not None
    journal.__exit__()
    path.write_bytes(content)  # As a driver leaves it that died before it could remove it.
    again, resumed = start(sweep, tmp_path / "x")
    drive(again)
    assert [trial.origin for trial in resumed.state.trials] == ["spec", "user"]


def test_costs_are_computed_for_each_trial(tmp_path: Path) -> None:
    space = {"model.backbone": {"choice": ["resnet18", "resnet34"]}}
    objective = [{"metric": "mAP"}, {"metric": "parameters"}]
    sweep = make_sweep(tmp_path, space=space, objective=objective, budget={"trials": 6})
    source, journal = searched(sweep, tmp_path / "x")
    found = {trial.parameters.get("model.backbone"): trial.costs["parameters"] for trial in journal.state.trials}
    assert found["resnet18"] < found["resnet34"] < found[None], "trial 0 is a ResNet-50"
    journal.__exit__()
    assert study_of(start(sweep, tmp_path / "x")[0]) == study_of(source)
