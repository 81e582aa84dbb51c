"""Trials that the budget or a rung pauses, in a search without Ray."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.experiment import Experiment
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.events import AttemptStarted, RunPaused
from reid_tune.journal.journal import Journal
from reid_tune.journal.requests import submit_request
from reid_tune.storage.object_store import LocalStore
from reid_tune.sweep.stages.search import TrialSource

from ...helpers.simulated_driver import EPOCHS, epoch_metrics, make_sweep, outcome, study_of
from ...helpers.simulated_search import PROMOTE, make_source, searched, start, wait_in

pytestmark = pytest.mark.usefixtures("no_fsync")


def report(source: TrialSource, number: int, epoch: int, value: float) -> bool:
    return source.report(f"trials/{number:04d}", {"epoch": epoch, "mAP": value})


def next_run(source: TrialSource) -> str | None:
    attempt = source.next_attempt()
    return attempt.run if attempt else None


def checkpoint(folder: Path, number: int, attempt: int = 1) -> Path:
    path = folder / f"trials/{number:04d}/attempt-{attempt}" / LATEST
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def budget(epochs: int, **values: Any) -> dict[str, Any]:
    """Sections of a search that may train that many epochs; see `EpochBudget`."""
    return {"budget": {"trials": 9, "gpu_hours": epochs}, **values}


def run_again(folder: Path, values: dict[str, Any]) -> Journal:
    """Run a search to its end, or continue it."""
    source, journal = searched(make_sweep(folder, **values), folder / "log")
    assert source.is_done()
    journal.__exit__()
    return journal


@pytest.mark.parametrize("sampler", ["auto", "random"])
@pytest.mark.parametrize("values", [{}, PROMOTE], ids=["stop", "promote"])
def test_a_larger_budget_continues_what_a_smaller_one_paused(
    tmp_path: Path, sampler: str, values: dict[str, Any]
) -> None:
    """The search is the one that the larger budget would have made from the start, wherever a driver is killed."""
    values = {**values, "search": {"sampler": sampler, "seed": 1}, "keep_paused": 9}
    expected = outcome(run_again(tmp_path / "whole", budget(26, **values)))
    small = run_again(tmp_path / "part", budget(20, **values))
    paused = [trial for trial in small.state.trials if trial.limit]
    assert [(trial.state, trial.reason) for trial in paused] == [("paused", "budget.gpu_hours is spent")]
    assert outcome(run_again(tmp_path / "part", budget(26, **values))) == expected
    lines = (tmp_path / "part/log" / EVENTS).read_bytes().splitlines(keepends=True)
    pause = next(index for index, line in enumerate(lines) if b'"limit":"gpu_hours"' in line)
    for count in (pause - 1, pause, pause + 1, pause + 2, pause + 3, pause + 6):
        folder = tmp_path / f"killed-{count}"
        (folder / "log").mkdir(parents=True)
        (folder / "log" / EVENTS).write_bytes(b"".join(lines[:count]))
        if count <= pause:
            run_again(folder, budget(20, **values))
        assert outcome(run_again(folder, budget(26, **values))) == expected, f"killed after event {count}"


def test_a_trial_that_the_budget_paused_keeps_its_checkpoint_and_continues_from_it(tmp_path: Path) -> None:
    values = budget(2)
    source, journal = wait_in(make_sweep(tmp_path, **values), tmp_path / "x", 2)
    files = [checkpoint(tmp_path / "x", number) for number in (0, 1)]
    assert report(source, 0, 1, 0.1) and report(source, 1, 1, 0.5)
    source.poll()
    assert [trial.state for trial in journal.state.trials] == ["running", "paused"], "trial 0 ends in any case"
    assert not source.is_running("trials/0001") and next_run(source) is None
    for epoch in range(2, EPOCHS + 1):
        report(source, 0, epoch, 0.1)
    assert source.is_done() and source.end_reason() == "gpu_hours" and all(file.exists() for file in files)
    journal.__exit__()
    source, journal = start(make_sweep(tmp_path, **budget(20)), tmp_path / "x")
    assert not source.is_done()
    attempt = source.next_attempt()
    assert attempt and (attempt.run, attempt.resume) == ("trials/0001", files[1])
    trial = journal.state.runs["trials/0001"]
    assert (trial.state, trial.reason, trial.limit, trial.attempts) == ("running", "", "", 2)


def test_the_best_paused_trials_are_kept_and_the_others_stopped(tmp_path: Path) -> None:
    values = budget(7, keep_paused=2, search={"sampler": "tpe", "seed": 1})
    source, journal = wait_in(make_sweep(tmp_path, **values), tmp_path / "x", 4)
    files = {number: checkpoint(tmp_path / "x", number) for number in (1, 2, 3)}
    for number, epochs, value in ((1, 3, 0.5), (2, 2, 0.6), (3, 2, 0.7)):
        for epoch in range(1, epochs + 1):
            assert report(source, number, epoch, value)
    source.poll()
    states = [(trial.state, trial.reason) for trial in journal.state.trials[1:]]
    assert states == [(state, "budget.gpu_hours is spent") for state in ("paused", "stopped", "paused")]
    assert {number for number, file in files.items() if file.exists()} == {1, 3}
    assert [state for state, *_ in study_of(source)] == ["RUNNING", "PRUNED", "RUNNING"]
    journal.__exit__()
    source, journal = start(make_sweep(tmp_path, **values | {"keep_paused": 0}), tmp_path / "x")
    assert [trial.state for trial in journal.state.trials] == ["running", "stopped", "stopped", "stopped"]


def test_of_a_trial_with_several_attempts_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    """Also where the last attempt has written none, and where a driver was killed before it removed the others."""
    values = budget(1)
    source, journal = wait_in(make_sweep(tmp_path, **values), tmp_path / "x", 2)
    first = checkpoint(tmp_path / "x", 1)
    report(source, 1, 1, 0.5)
    source.poll()  # It pauses.
    journal.__exit__()
    source, journal = start(make_sweep(tmp_path, **budget(2)), tmp_path / "x")
    trial = journal.state.runs["trials/0001"]
    assert [next_run(source), next_run(source)] == ["trials/0000", trial.name] and first.exists()
    report(source, 1, 2, 0.5)
    source.poll()  # It pauses again, in an attempt without a checkpoint.
    assert (trial.state, trial.attempts) == ("paused", 2) and first.exists()
    journal.__exit__()
    source, journal = start(make_sweep(tmp_path, **budget(20)), tmp_path / "x")
    trial = journal.state.runs["trials/0001"]
    assert [next_run(source), next_run(source)] == ["trials/0000", trial.name]
    third = checkpoint(tmp_path / "x", 1, attempt=3)
    for epoch in range(3, EPOCHS + 1):
        assert first.exists()
        report(source, 1, epoch, 0.5)
    assert (trial.state, trial.attempts) == ("finished", 3)
    assert third.exists() and not first.parent.exists() and journal.files.newest_checkpoint(trial.name) == third
    journal.__exit__()
    checkpoint(tmp_path / "x", 1, attempt=2)
    source, journal = start(make_sweep(tmp_path, **budget(20)), tmp_path / "x")
    assert [path.name for path in third.parent.parent.glob("attempt-*")] == ["attempt-3"]


def test_a_paused_trial_can_be_stopped(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path, **budget(1)), tmp_path / "x", 2)
    report(source, 1, 1, 0.5)
    source.poll()
    submit_request(LocalStore(tmp_path / "x"), "stop", "trials/0001")
    source.poll()
    trial = journal.state.runs["trials/0001"]
    assert (trial.state, trial.reason, trial.limit) == ("stopped", "by request", "")


def test_a_free_worker_promotes_before_it_starts_a_new_trial(tmp_path: Path) -> None:
    source, journal = wait_in(make_sweep(tmp_path, scheduler={"mode": "promote"}), tmp_path / "x", 4)
    files = [checkpoint(tmp_path / "x", number) for number in range(4)]
    assert report(source, 0, 1, 0.1), "trial 0 is never paused, and counts at its rungs"
    assert not report(source, 1, 1, 0.4)
    assert next_run(source) == "trials/0004", "two scores are too few"
    assert not report(source, 2, 1, 0.3)
    attempt = source.next_attempt()
    assert attempt and (attempt.run, attempt.resume) == ("trials/0001", files[1])
    assert [trial.state for trial in journal.state.trials] == ["running", "running", "paused", "running", "running"]
    assert report(source, 1, 1, 0.4), "the log has this epoch"
    assert not report(source, 3, 1, 0.2) and report(source, 1, 2, 0.5)
    assert next_run(source) == "trials/0005"
    assert report(source, 4, 1, 0.45), "the best of five continues at once"


def test_paused_trials_are_promoted_after_the_last_new_trial(tmp_path: Path) -> None:
    journal = run_again(tmp_path, {"budget": {"trials": 9}, "scheduler": {"mode": "promote"}})
    states = [trial.state for trial in journal.state.trials]
    assert set(states) == {"finished", "paused"} and states.count("finished") >= 2
    pauses = [event.run for event in Journal(tmp_path / "log").earlier_events if isinstance(event, RunPaused)]
    promoted = [
        event.run
        for event in Journal(tmp_path / "log").earlier_events
        if isinstance(event, AttemptStarted) and event.attempt > 1
    ]
    assert promoted and set(promoted) <= set(pauses)


def test_trials_in_parallel_replay_to_the_same_rungs(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 16}, **PROMOTE)
    source, journal = start(sweep, tmp_path / "whole")
    live: dict[str, tuple[Experiment, int]] = {}
    while not source.is_done():
        while len(live) < 3 and (attempt := source.next_attempt()) is not None:
            live[attempt.run] = (attempt.experiment, journal.state.runs[attempt.run].epoch)
        for run, (experiment, epoch) in list(live.items()):
            live[run] = (experiment, epoch + 1)
            if not source.report(run, epoch_metrics(experiment, epoch + 1)):
                del live[run]
        (folder := tmp_path / f"{len(journal.state.trials)}").mkdir(exist_ok=True)
        shutil.copy(journal.path, folder)
        with Journal(folder) as copied:
            again = make_source(sweep, copied)
        assert again.asha._scores == source.asha._scores  # type: ignore[union-attr]
        assert again.paused.next_run() == source.paused.next_run()
    assert sum(trial.state == "paused" for trial in journal.state.trials) <= 3
    assert max(trial.attempts for trial in journal.state.trials) > 1
