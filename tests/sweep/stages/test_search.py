import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.experiment import Experiment
from reid_tune.errors import RunFailedError
from reid_tune.execution.failures import Failure
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.events import ArtifactWritten, DriverEnded, StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.requests import pending_requests, submit_request
from reid_tune.journal.state import replay
from reid_tune.search.asha import rung_epochs
from reid_tune.search.study import suggestion_seed
from reid_tune.search_space.load import SweepConfig
from reid_tune.storage.object_store import LocalStore
from reid_tune.sweep.resume import make_header
from reid_tune.sweep.stages.search import TrialSource

from ...helpers.simulated_driver import (
    EPOCHS,
    Objective,
    drive,
    epoch_metrics,
    make_sweep,
    outcome,
    study_of,
    surrogate,
)

LEVELS = rung_epochs(1, 3, EPOCHS)
DEAD = Failure("lost_worker", "the worker process died")
NAME, RATE, MARGIN = "train.optim.name", "train.optim.base_lr", "train.optim.triplet_loss_margin"
CONDITIONAL: dict[str, Any] = {
    "space": {
        NAME: {"choice": ["Adam", "AdamW", "SGD"]},
        RATE: [
            {"loguniform": [1e-3, 1e-1], "when": {NAME: "SGD"}},
            {"loguniform": [1e-4, 1e-2], "when": {NAME: ["Adam", "AdamW"]}},
        ],
        "model.no_margin": {"choice": [True, False]},
        MARGIN: {"quniform": [0.1, 0.6, 0.05], "when": {"model.no_margin": False}},
        "train.optim.lr_steps": {"list": [{"int": [2, 3]}, {"int": [4, 5]}]},
    },
    "constraints": [f"{MARGIN} < 0.4 or {NAME} == 'AdamW'", f"{RATE} > 5e-4"],
}
GRID: dict[str, Any] = {
    "space": {
        NAME: {"choice": ["Adam", "AdamW"]},
        "train.optim.warmup_iters": {"int": [0, 3]},
        MARGIN: {"quniform": [0.2, 0.4, 0.1], "when": {NAME: "AdamW"}},
    },
    "constraints": [f"{MARGIN} < 0.35 or train.optim.warmup_iters > 0"],
}

pytestmark = pytest.mark.usefixtures("no_fsync")


def start(sweep: SweepConfig, folder: Path, levels: tuple[int, ...] = LEVELS) -> tuple[TrialSource, Journal]:
    journal = begin(sweep, folder)
    return TrialSource(sweep, journal, levels), journal


def begin(sweep: SweepConfig, folder: Path) -> Journal:
    """The journal of a sweep that has begun, or begins now."""
    journal = Journal(folder)
    if not journal.earlier_events:
        journal.emit(make_header(sweep))
    return journal


def searched(sweep: SweepConfig, folder: Path, objective: Objective = surrogate) -> tuple[TrialSource, Journal]:
    source, journal = start(sweep, folder)
    drive(source, objective)
    return source, journal


def wait_in(sweep: SweepConfig, folder: Path, trials: int) -> tuple[TrialSource, Journal]:
    """A search in which that many trials have been started and nothing has been reported."""
    source, journal = start(sweep, folder)
    for _ in range(trials):
        assert source.next_attempt() is not None
    return source, journal


def test_seeds_of_suggestions_are_all_unlike() -> None:
    seeds = {suggestion_seed(seed, number) for seed in (0, 1, 1234) for number in range(300)}
    assert len(seeds) == 900 and max(seeds) < 2**32
    assert suggestion_seed(1234, 7) == suggestion_seed(1234, 7)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
@pytest.mark.parametrize("values", [{}, CONDITIONAL], ids=["plain", "conditional"])
def test_a_search_is_deterministic(tmp_path: Path, sampler: str, values: dict[str, Any]) -> None:
    sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 1}, **values)
    first, second = (searched(sweep, tmp_path / name) for name in ("first", "second"))
    assert outcome(first[1]) == outcome(second[1])
    assert study_of(first[0]) == study_of(second[0])
    other = make_sweep(tmp_path, search={"sampler": sampler, "seed": 2}, **values)
    assert outcome(searched(other, tmp_path / "other")[1]) != outcome(first[1])


SEARCHES = [("tpe", {}), ("random", {}), ("tpe", CONDITIONAL), ("random", CONDITIONAL), ("grid", GRID)]


@pytest.mark.parametrize(
    ("sampler", "values", "step"),
    [
        ("tpe", CONDITIONAL, 7),
        ("grid", GRID, 7),
        *(pytest.param(*search, 1, marks=pytest.mark.integration) for search in SEARCHES),
    ],
)
def test_a_driver_killed_after_any_event_changes_nothing(
    tmp_path: Path, sampler: str, values: dict[str, Any], step: int
) -> None:
    """The unit tests take every seventh event: kinds of events come in groups of other sizes."""
    sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 1}, budget={"trials": 12}, **values)
    whole, journal = searched(sweep, tmp_path / "whole")
    states = [trial.state for trial in journal.state.trials]
    assert states.count("stopped") >= 2 and states.count("finished") >= 2 and len(states) == 12
    lines = (tmp_path / "whole" / EVENTS).read_bytes().splitlines(keepends=True)
    for count in range(0, len(lines), step):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / EVENTS).write_bytes(b"".join(lines[:count]))
        again, resumed = searched(sweep, folder)
        resumed.__exit__()
        assert outcome(resumed) == outcome(journal), f"killed after event {count}"
        assert study_of(again) == study_of(whole), f"killed after event {count}"
        assert resumed.state == replay(Journal(folder).earlier_events)


def test_a_driver_killed_again_and_again_gets_there(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, search={"sampler": "tpe", "seed": 1})
    expected = outcome(searched(sweep, tmp_path / "whole")[1])
    for _ in range(100):
        source, journal = start(sweep, tmp_path / "killed")
        left = [5]

        def count(event: Any, state: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                raise InterruptedError

        journal.listeners.append(count)
        try:
            drive(source)
        except InterruptedError:
            journal.__exit__()
            continue
        assert outcome(journal) == expected
        return
    raise AssertionError("it never ended")


@pytest.mark.parametrize(("sampler", "values"), [("tpe", {}), ("tpe", CONDITIONAL), ("gp", CONDITIONAL)])
def test_trials_in_parallel_replay_to_the_same_study(tmp_path: Path, sampler: str, values: dict[str, Any]) -> None:
    sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 1}, budget={"trials": 12}, **values)
    source, journal = start(sweep, tmp_path / "whole")
    live: dict[str, tuple[Experiment, int]] = {}
    while not source.is_done():
        while len(live) < 3 and (attempt := source.next_attempt()) is not None:
            live[attempt.run] = (attempt.experiment, 0)
        for run, (experiment, epoch) in list(live.items()):
            live[run] = (experiment, epoch + 1)
            if not source.report(run, epoch_metrics(experiment, epoch + 1)):
                del live[run]
    journal.__exit__()
    again, _ = start(sweep, tmp_path / "whole")
    assert again.is_done() and study_of(again) == study_of(source)
    assert again.pruning.asha._recorded == source.pruning.asha._recorded
    assert again.study.ask("trials/0012", 12) == source.study.ask("trials/0012", 12)


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


def test_trial_0_is_never_stopped_but_counts_at_its_rungs(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 3)
    report = lambda run, epoch, value: source.report(run, {"epoch": epoch, "mAP": value})  # noqa: E731
    assert report("trials/0001", 1, 0.5)
    assert report("trials/0000", 1, 0.4)
    assert source.pruning.asha._recorded[1] == [0.5, 0.4]
    assert not report("trials/0002", 1, 0.4)  # the cutoff of 0.5 and 0.4 is between them
    assert journal.state.runs["trials/0002"].reason == "below rung 1"
    assert all(report("trials/0000", epoch, 0.4) for epoch in range(2, EPOCHS))
    assert not report("trials/0000", EPOCHS, 0.4)
    assert journal.state.runs["trials/0000"].state == "finished"


def test_states_in_optunas_terms(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 4)
    for epoch in range(1, EPOCHS + 1):
        source.report("trials/0001", {"epoch": epoch, "mAP": 0.1 * epoch})
    source.report("trials/0002", {"epoch": 1, "mAP": 0.01})
    source.report("trials/0003", {"failed": "the loss is nan in epoch 1", "failure": "non_finite"})
    states = [(state, value, steps) for state, _, value, steps in study_of(source)]
    assert states == [
        ("COMPLETE", 0.1 * EPOCHS, {epoch: 0.1 * epoch for epoch in range(1, EPOCHS + 1)}),
        ("PRUNED", 0.01, {1: 0.01}),
        ("PRUNED", None, {}),
    ]
    assert journal.state.runs["trials/0003"].reason == "the loss is nan in epoch 1"
    journal.__exit__()
    assert study_of(start(source.sweep, tmp_path / "x")[0]) == study_of(source)


@pytest.mark.parametrize("metrics", [{"mAP": math.nan, "loss": 1.0}, {"mAP": 0.5, "loss": math.inf}])
def test_what_is_not_finite_ends_the_trial_and_never_reaches_optuna(
    tmp_path: Path, metrics: Mapping[str, float]
) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 2)
    source.report("trials/0001", {"epoch": 1, "mAP": 0.5, "loss": 1.0})
    assert not source.report("trials/0001", {"epoch": 2, **metrics})
    trial = journal.state.runs["trials/0001"]
    assert (trial.state, trial.epoch) == ("failed", 1)
    assert "epoch 2" in trial.reason and ("nan" in trial.reason or "inf" in trial.reason)
    assert study_of(source)[0][0] == "PRUNED"
    assert all(math.isfinite(value) for value in study_of(source)[0][3].values())


def test_a_report_that_the_log_has_is_dropped(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 2)
    assert source.report("trials/0001", {"epoch": 1, "mAP": 0.5})
    before = (tmp_path / "x" / EVENTS).read_bytes()
    assert source.report("trials/0001", {"epoch": 1, "mAP": 0.1})
    assert (tmp_path / "x" / EVENTS).read_bytes() == before
    assert source.pruning.asha._recorded[1] == [0.5]


def test_epochs_without_validation_decide_nothing(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 3)
    assert source.report("trials/0001", {"epoch": 1, "mAP": 0.5})
    assert source.report("trials/0002", {"epoch": 1, "loss": 9.0})
    assert source.pruning.asha._recorded[1] == [0.5]


def test_a_lost_worker_is_started_again_and_then_given_up(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path, budget={"trials": 2}), tmp_path / "x", 2)
    folder = tmp_path / "x/trials/0001"
    for number in range(1, 3):
        (folder / f"attempt-{number}").mkdir(parents=True)
        (folder / f"attempt-{number}" / LATEST).touch()
        source.report_lost("trials/0001", DEAD)
        attempt = source.next_attempt()
        assert attempt is not None and attempt.run == "trials/0001"
        assert attempt.folder == folder / f"attempt-{number + 1}"
        assert attempt.resume == folder / f"attempt-{number}" / LATEST
    assert journal.state.runs["trials/0001"].attempts == 3
    source.report_lost("trials/0001", DEAD)
    trial = journal.state.runs["trials/0001"]
    assert (trial.state, trial.reason) == ("failed", "the worker process died")
    assert [state for state, *_ in study_of(source)] == ["FAIL"]
    assert source.next_attempt() is None and not source.is_done()
    source.report("trials/0000", {"failed": "x", "failure": "invalid"})
    assert source.is_done()


def test_a_lost_trial_0_is_given_up_too(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 1)
    for _ in range(2):
        source.report_lost("trials/0000", DEAD)
        source.next_attempt()
    source.report_lost("trials/0000", DEAD)
    assert journal.state.runs["trials/0000"].state == "failed"
    assert study_of(source) == []
    journal.__exit__()
    assert start(source.sweep, tmp_path / "x")[0].next_attempt() is not None


@pytest.mark.parametrize(("rate", "inside"), [(3.5e-4, True), (5e-2, False)])
def test_trial_0_joins_the_study_inside_the_ranges_only(tmp_path: Path, rate: float, inside: bool) -> None:
    spec = {"train": {"num_epochs": 2, "optim": {"base_lr": rate, "bias_lr_factor": 1, "lr_steps": [2]}}}
    space = {
        "train.optim.base_lr": {"loguniform": [1e-4, 1e-2]},
        "train.optim.bias_lr_factor": {"choice": [1, 2]},
        "train.optim.lr_steps": {"choice": [[1], [2]]},
    }
    sweep = make_sweep(tmp_path, spec, space=space, budget={"trials": 1})
    source, journal = searched(sweep, tmp_path / "x", lambda experiment, epoch: 0.25 * epoch)
    parameters = {
        "train.optim.base_lr": rate,
        "train.optim.bias_lr_factor": "1.0",
        "train.optim.lr_steps": "[2]",
    }
    assert study_of(source) == ([("COMPLETE", parameters, 0.5, {1: 0.25, 2: 0.5})] if inside else [])
    journal.__exit__()
    assert study_of(start(sweep, tmp_path / "x")[0]) == study_of(source)


def test_only_full_length_trials_win_and_ties_go_to_the_earlier(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 5)
    source.report("trials/0004", {"epoch": 1, "mAP": 0.95})
    source.report("trials/0003", {"epoch": 1, "mAP": 0.9})
    for run in ("trials/0002", "trials/0001"):
        for epoch in range(1, EPOCHS + 1):
            source.report(run, {"epoch": epoch, "mAP": 0.96})
    source.report("trials/0000", {"failed": "out of memory", "failure": "error"})
    assert journal.state.runs["trials/0003"].state == "stopped"
    assert [trial.number for trial in journal.state.finished()] == [1, 2]


def test_checkpoints_stay_for_the_best_and_trial_0(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 7)
    folders = {number: tmp_path / f"x/trials/{number:04d}/attempt-1" for number in range(7)}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / LATEST).touch()
        (folder.parent / "log.txt").touch()
    for number in range(5):
        for epoch in range(1, EPOCHS + 1):
            source.report(f"trials/{number:04d}", {"epoch": epoch, "mAP": 0.1 * (number + 1)})
    source.report("trials/0005", {"failed": "out of memory", "failure": "error"})
    left = {number for number, folder in folders.items() if (folder / LATEST).exists()}
    assert left == {0, 2, 3, 4, 6}  # the spec, the best three, and the one that runs
    assert all((folder.parent / "log.txt").exists() for folder in folders.values())


def test_the_budget_is_kept(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path, budget={"trials": 3}), tmp_path / "x", 3)
    assert source.next_attempt() is None and not source.is_done()
    for number in range(3):
        source.report(f"trials/{number:04d}", {"failed": "x", "failure": "error"})
    assert source.is_done() and source.next_attempt() is None


def test_tpe_finds_better_trials_than_chance(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 3}, budget={"trials": 40})
        _, journal = searched(sweep, tmp_path / sampler)
        values = [trial.last("mAP") or 0.0 for trial in journal.state.trials[20:]]
        best[sampler] = sum(values) / len(values)
    assert best["tpe"] > best["random"]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_every_trial_is_inside_its_ranges_and_constraints(tmp_path: Path, sampler: str) -> None:
    sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 4}, budget={"trials": 24}, **CONDITIONAL)
    source, journal = searched(sweep, tmp_path / "x")
    for trial in journal.state.trials[1:]:
        found = trial.parameters
        assert set(found) == set(sweep.file.space) - ({MARGIN} if found["model.no_margin"] else set())
        low, high = (1e-3, 1e-1) if found[NAME] == "SGD" else (1e-4, 1e-2)
        assert max(low, 5e-4) <= found[RATE] <= high
        assert found[NAME] == "AdamW" or found.get(MARGIN, 0.3) < 0.4
        assert not sweep.space.broken_constraints(found)
    names = {name for _, params, *_ in study_of(source) for name in params}
    assert {f"{RATE}#0", f"{RATE}#1", "train.optim.lr_steps[0]", "train.optim.lr_steps[1]"} <= names


def test_where_the_sampler_finds_nothing_chance_does(tmp_path: Path) -> None:
    space = {RATE: {"uniform": [0, 1]}}
    sweep = make_sweep(
        tmp_path, space=space, constraints=[f"0.5 < {RATE} < 0.51"], search={"sampler": "tpe", "seed": 1}
    )
    _, journal = searched(sweep, tmp_path / "x")
    assert all(0.5 < trial.parameters[RATE] < 0.51 for trial in journal.state.trials[1:])
    assert len({trial.parameters[RATE] for trial in journal.state.trials[1:]}) == 8
    never = make_sweep(tmp_path, space=space, constraints=[f"1 / ({RATE} - {RATE}) > 0"])
    with pytest.raises(RunFailedError, match="trials/0001: 10,000 random configurations break the constraints"):
        wait_in(never, tmp_path / "never", 2)


@pytest.mark.parametrize(("constraint", "inside"), [(f"{RATE} < 1e-3", True), (f"{RATE} > 1e-3", False)])
def test_trial_0_joins_the_study_within_the_constraints_only(tmp_path: Path, constraint: str, inside: bool) -> None:
    sweep = make_sweep(tmp_path, constraints=[constraint], budget={"trials": 1})
    source, _ = searched(sweep, tmp_path / "x")
    assert [state for state, *_ in study_of(source)] == (["COMPLETE"] if inside else [])


def test_trial_0_joins_the_study_with_the_ranges_that_hold_for_the_spec(tmp_path: Path) -> None:
    source, _ = searched(make_sweep(tmp_path, budget={"trials": 1}, **GRID), tmp_path / "x")
    assert study_of(source)[0][:2] == ("COMPLETE", {NAME: '"Adam"', "train.optim.warmup_iters": 1})


def test_a_grid_runs_every_combination_once(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, search={"sampler": "grid"}, budget={}, **GRID)
    _, journal = searched(sweep, tmp_path / "x")
    expected = [{NAME: "Adam", "train.optim.warmup_iters": warmup} for warmup in (0, 2, 3)]
    expected += [
        {NAME: "AdamW", "train.optim.warmup_iters": warmup, MARGIN: margin}
        for warmup in range(4)
        for margin in (0.2, 0.3, 0.4)
        if margin < 0.35 or warmup
    ]
    assert [trial.parameters for trial in journal.state.trials] == [{}, *expected]


def test_what_the_log_says_of_no_run_changes_nothing_when_a_search_continues(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 6})
    whole, journal = searched(sweep, tmp_path / "whole")
    journal.emit(ArtifactWritten(path="report.html", folder=""))
    journal.emit(DriverEnded(status="FINISHED"))
    journal.__exit__()
    resumed = Journal(tmp_path / "whole")
    assert study_of(TrialSource(sweep, resumed, LEVELS)) == study_of(whole)


def test_tpe_learns_under_conditions_and_constraints(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 3}, budget={"trials": 40}, **CONDITIONAL)
        _, journal = searched(sweep, tmp_path / sampler)
        values = [trial.last("mAP") or 0.0 for trial in journal.state.trials[20:]]
        best[sampler] = sum(values) / len(values)
    assert best["tpe"] > best["random"]


def test_initial_points_come_after_trial_0_and_count(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 4})
    given = [{"parameters": {RATE: 0.001 * number}, "origin": f"start_from[{number}]"} for number in (1, 2)]
    journal = begin(sweep, tmp_path / "x")
    journal.emit(StageDone(stage="preflight", result={"initial_points": given}))
    drive(TrialSource(sweep, journal, LEVELS))
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


def test_users_stop_running_trials_but_not_trial_0(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path), tmp_path / "x", 3)
    for run in ("trials/0002", "trials/0000", "trials/0099"):
        submit_request(LocalStore(tmp_path / "x"), "stop", run)
    source.poll()
    states = [(trial.state, trial.reason) for trial in journal.state.trials]
    assert states == [("running", ""), ("running", ""), ("stopped", "by request")]
    assert not source.is_running("trials/0002") and not pending_requests(tmp_path / "x")
    assert study_of(source)[1][0] == "PRUNED"
    source.report_lost("trials/0001", DEAD)
    submit_request(LocalStore(tmp_path / "x"), "stop", "trials/0001")
    source.poll()
    assert journal.state.runs["trials/0001"].state == "stopped" and not source.recorder.pending_runs


def test_costs_are_computed_for_each_trial(tmp_path: Path) -> None:
    space = {"model.backbone": {"choice": ["resnet18", "resnet34"]}}
    objective = [{"metric": "mAP"}, {"metric": "parameters"}]
    sweep = make_sweep(tmp_path, space=space, objective=objective, budget={"trials": 6})
    source, journal = searched(sweep, tmp_path / "x")
    found = {trial.parameters.get("model.backbone"): trial.costs["parameters"] for trial in journal.state.trials}
    assert found["resnet18"] < found["resnet34"] < found[None], "trial 0 is a ResNet-50"
    journal.__exit__()
    assert study_of(start(sweep, tmp_path / "x")[0]) == study_of(source)
