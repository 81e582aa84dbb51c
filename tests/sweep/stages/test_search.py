import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.experiment import Experiment
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.events import ArtifactWritten, DriverEnded, StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.requests import pending_requests, submit_request
from reid_tune.journal.state import replay
from reid_tune.search.asha import Rungs
from reid_tune.storage.object_store import LocalStore
from reid_tune.sweep.stages.search import TrialSource

from ...helpers.simulated_driver import (
    EPOCHS,
    drive,
    epoch_metrics,
    make_sweep,
    outcome,
    study_of,
)
from ...helpers.simulated_search import (
    CONDITIONAL,
    DEAD,
    GRID,
    LEVELS,
    PROMOTE,
    TPE,
    begin,
    searched,
    start,
    wait_in,
)

pytestmark = pytest.mark.usefixtures("no_fsync")

SEARCHES = [
    ("auto", CONDITIONAL),
    ("tpe", {}),
    ("random", {}),
    ("tpe", CONDITIONAL),
    ("random", CONDITIONAL),
    ("grid", GRID),
    ("auto", PROMOTE),
]


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
@pytest.mark.parametrize("values", [{}, CONDITIONAL], ids=["plain", "conditional"])
def test_a_search_is_deterministic(tmp_path: Path, sampler: str, values: dict[str, Any]) -> None:
    sweep = make_sweep(tmp_path, search={"sampler": sampler, "seed": 1}, **values)
    first, second = (searched(sweep, tmp_path / name) for name in ("first", "second"))
    assert outcome(first[1]) == outcome(second[1])
    assert study_of(first[0]) == study_of(second[0])
    other = make_sweep(tmp_path, search={"sampler": sampler, "seed": 2}, **values)
    assert outcome(searched(other, tmp_path / "other")[1]) != outcome(first[1])


@pytest.mark.parametrize(
    ("sampler", "values", "step"),
    [
        ("tpe", CONDITIONAL, 7),
        ("grid", GRID, 7),
        ("random", PROMOTE, 7),
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
    assert states.count("stopped") + states.count("paused") >= 2 and states.count("finished") >= 2 and len(states) == 12
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


@pytest.mark.parametrize(("sampler", "values"), [("tpe", {}), ("tpe", CONDITIONAL), ("auto", CONDITIONAL)])
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
    source, journal = wait_in(make_sweep(tmp_path, search=TPE), tmp_path / "x", 4)
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
    source, journal = wait_in(make_sweep(tmp_path, search=TPE), tmp_path / "x", 2)
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
    source, journal = wait_in(make_sweep(tmp_path, search=TPE, budget={"trials": 2}), tmp_path / "x", 2)
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


def test_what_the_log_says_of_no_run_changes_nothing_when_a_search_continues(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 6})
    whole, journal = searched(sweep, tmp_path / "whole")
    journal.emit(ArtifactWritten(path="report.html", folder=""))
    journal.emit(DriverEnded(status="FINISHED"))
    journal.__exit__()
    resumed = Journal(tmp_path / "whole")
    assert study_of(TrialSource(sweep, resumed, Rungs(LEVELS))) == study_of(whole)


def test_users_stop_running_trials_but_not_trial_0(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path, search=TPE), tmp_path / "x", 3)
    for run in ("trials/0002", "trials/0000", "trials/0099"):
        submit_request(LocalStore(tmp_path / "x"), "stop", run)
    source.poll()
    states = [(trial.state, trial.reason) for trial in journal.state.trials]
    assert states == [("running", ""), ("running", ""), ("stopped", "by request")]
    assert not source.is_running("trials/0002") and not pending_requests(tmp_path / "x")
    assert [state for state, *_ in study_of(source)] == ["RUNNING", "FAIL"], "it teaches nothing"
    source.report_lost("trials/0001", DEAD)
    submit_request(LocalStore(tmp_path / "x"), "stop", "trials/0001")
    source.poll()
    assert journal.state.runs["trials/0001"].state == "stopped" and not source.recorder.pending_runs


WARMUP = "train.optim.warmup_iters"


def test_trials_are_compared_at_the_same_epochs_after_their_warm_up(tmp_path: Path) -> None:
    """With the shortest warm-up, of 0 epochs, the rung is at epoch 2; a trial with 2 epochs of warm-up has it at 4."""
    space = {WARMUP: {"int": [0, 2]}}
    points = [{"parameters": {WARMUP: epochs}, "origin": "given"} for epochs in (0, 2)]
    sweep = make_sweep(tmp_path, space=space)
    journal = begin(sweep, tmp_path / "log")
    journal.emit(StageDone(stage="preflight", result={"initial_points": points}))
    source = TrialSource(sweep, journal, Rungs((2,), warmup=0))
    validated = [attempt.validate_at for attempt in (source.next_attempt() for _ in range(3)) if attempt]
    assert validated == [(3,), (2,), (4,)]
    assert source.report("trials/0000", {"epoch": 3, "mAP": 0.5})
    assert not source.report("trials/0001", {"epoch": 2, "mAP": 0.4})
    for epoch in (2, 3):
        assert source.report("trials/0002", {"epoch": epoch, "mAP": 0.1}), "it has not come to its rung"
    assert not source.report("trials/0002", {"epoch": 4, "mAP": 0.4})
    assert [trial.reason for trial in journal.state.trials] == ["", "below rung 2", "below rung 4"]
