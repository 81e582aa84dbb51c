import math
import shutil
from pathlib import Path

import pytest

from reid_tune.errors import FailedRun
from reid_tune.sweep.file import Sweep
from reid_tune.sweep.journal import EVENTS, Journal
from reid_tune.sweep.runs.source import ATTEMPTS
from reid_tune.sweep.stages.refit import Refit, finalists
from reid_tune.sweep.state import trial_run

from ..simulation import EPOCHS, drive, epoch_metrics, make_sweep, outcome

pytestmark = pytest.mark.usefixtures("no_fsync")

PARAMETERS = {"train.optim.base_lr": 0.002, "train.optim.name": "AdamW"}
Trial = tuple[str, float]


def journal_with(folder: Path, trials: list[Trial]) -> Journal:
    """The log behind a search of these (state, mAP)."""
    journal = Journal(folder)
    for number, (state, value) in enumerate(trials):
        run = trial_run(number)
        journal.emit("suggested", run=run, parameters=PARAMETERS if number else {})
        journal.emit("attempt", run=run, attempt=1)
        journal.emit("report", run=run, epoch=1, metrics={"mAP": value})
        reason = {"reason": "out of memory"} if state == "failed" else {}
        journal.emit("ended", run=run, state=state, epoch=1, **reason)
    return journal


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return make_sweep(tmp_path)


def test_winner_and_trial_0_are_refitted_without_hold_out(tmp_path: Path, sweep: Sweep) -> None:
    journal = journal_with(tmp_path / "x", [("finished", 0.2), ("finished", 0.3), ("stopped", 0.9)])
    source = Refit(sweep, journal)
    winner, trial0 = source.next(), source.next()
    assert winner is not None and trial0 is not None and source.next() is None
    assert (winner.run, trial0.run) == ("refit/winner", "refit/trial0")
    base = sweep.experiment.parameters() | {"dataset.validation": "none"}
    assert winner.experiment.parameters() == base | PARAMETERS
    assert trial0.experiment.parameters() == base
    assert journal.state.runs["refit/winner"].parameters == PARAMETERS | {"dataset.validation": "none"}
    assert not source.done()


@pytest.mark.parametrize("trials", [[("finished", 0.3), ("finished", 0.3)], [("finished", 0.1), ("stopped", 0.9)]])
def test_a_winning_trial_0_is_refitted_once(tmp_path: Path, sweep: Sweep, trials: list[Trial]) -> None:
    journal = journal_with(tmp_path / "x", trials)
    assert [trial.number for trial in finalists(journal, "mAP").values()] == [0]
    source = Refit(sweep, journal)
    assert drive(source) == ["refit/winner"]
    assert source.done() and journal.state.runs["refit/winner"].epoch == EPOCHS


def test_a_trial_0_that_failed_is_not_refitted(tmp_path: Path, sweep: Sweep) -> None:
    journal = journal_with(tmp_path / "x", [("failed", 0.9), ("finished", 0.3)])
    assert drive(Refit(sweep, journal)) == ["refit/winner"]
    assert journal.state.runs["refit/winner"].parameters["train.optim.name"] == "AdamW"


def test_a_search_without_full_length_trial_has_nothing_to_refit(tmp_path: Path, sweep: Sweep) -> None:
    journal = journal_with(tmp_path / "x", [("failed", 0.1), ("stopped", 0.2), ("failed", 0.3)])
    with pytest.raises(FailedRun, match="no trial of the search reached its last epoch: out of memory"):
        Refit(sweep, journal)


def test_a_driver_killed_behind_any_event_changes_nothing(tmp_path: Path, sweep: Sweep) -> None:
    journal = journal_with(tmp_path / "whole", [("finished", 0.2), ("finished", 0.3)])
    searched = len((tmp_path / "whole" / EVENTS).read_bytes().splitlines())
    drive(Refit(sweep, journal))
    journal.__exit__()
    lines = (tmp_path / "whole" / EVENTS).read_bytes().splitlines(keepends=True)
    assert len(lines) - searched == 2 * (2 + EPOCHS + 1)
    for count in range(searched, len(lines) + 1):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / EVENTS).write_bytes(b"".join(lines[:count]))
        resumed = Journal(folder)
        source = Refit(sweep, resumed)
        drive(source)
        assert source.done() and outcome(resumed) == outcome(journal), f"killed behind event {count}"


def test_failures(tmp_path: Path, sweep: Sweep) -> None:
    journal = journal_with(tmp_path / "x", [("finished", 0.2), ("finished", 0.3)])
    source = Refit(sweep, journal)
    source.next(), source.next()
    assert source.report("refit/winner", epoch_metrics(sweep.experiment, 1))
    assert source.report("refit/winner", epoch_metrics(sweep.experiment, 1))
    assert not source.report("refit/winner", {"epoch": 2, "loss": math.nan})
    assert not source.done()
    for _ in range(ATTEMPTS - 1):
        source.lost("refit/trial0", "the worker process died")
        attempt = source.next()
        assert attempt is not None and attempt.run == "refit/trial0"
    source.lost("refit/trial0", "the worker process died")
    assert source.done() and source.next() is None
    reasons = [journal.state.runs[run].reason for run in ("refit/winner", "refit/trial0")]
    assert reasons == ["loss is nan in epoch 2", "the worker process died"]
