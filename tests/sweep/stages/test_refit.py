from pathlib import Path
from typing import Any

import pytest

from reid_tune.journal.events import StageDone
from reid_tune.journal.journal import Journal
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.refit import find_finalists, make_refit_runs

from ...helpers.searched_sweep import PARAMETERS, journal_with
from ...helpers.simulated_driver import EPOCHS, drive, make_sweep

pytestmark = pytest.mark.usefixtures("no_fsync")


def confirmed(folder: Path, sweep: SweepConfig, winner: int, whole: list[int]) -> Journal:
    journal = journal_with(folder, sweep, [("finished", 0.1), ("finished", 0.2), ("finished", 0.3)])
    result: dict[str, Any] = {"winner": winner, "trials": [{"number": number} for number in whole]}
    journal.emit(StageDone(stage="confirm", result=result))
    return journal


def test_winner_and_trial_0_are_refitted_without_validation_split(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    journal = confirmed(tmp_path / "x", sweep, 1, [0, 1, 2])
    source = make_refit_runs(sweep, journal)
    winner, trial0 = source.next_attempt(), source.next_attempt()
    assert winner is not None and trial0 is not None and source.next_attempt() is None
    assert (winner.run, trial0.run) == ("refit/winner", "refit/trial0")
    base = sweep.experiment.parameters() | {"dataset.validation": "none"}
    assert winner.experiment.parameters() == base | PARAMETERS[1]
    assert trial0.experiment.parameters() == base
    assert winner.features is None and not source.is_done()


@pytest.mark.parametrize(("winner", "whole", "runs"), [(0, [0, 1], ["refit/winner"]), (1, [1], ["refit/winner"])])
def test_trial_0_is_refitted_once_and_only_if_it_can_be_trained(
    tmp_path: Path, winner: int, whole: list[int], runs: list[str]
) -> None:
    sweep = make_sweep(tmp_path)
    journal = confirmed(tmp_path / "x", sweep, winner, whole)
    assert [trial.number for trial in find_finalists(journal).values()] == [winner]
    source = make_refit_runs(sweep, journal)
    assert drive(source) == runs
    assert source.is_done() and journal.state.runs["refit/winner"].epoch == EPOCHS


def test_further_refits_differ_in_the_seed(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, refit={"seeds": 3})
    journal = confirmed(tmp_path / "x", sweep, 1, [0, 1])
    source = make_refit_runs(sweep, journal)
    assert drive(source) == [
        *("refit/winner", "refit/trial0"),
        *("refit/winner-2", "refit/trial0-2"),
        *("refit/winner-3", "refit/trial0-3"),
    ]
    seed = sweep.experiment.train.seed
    seeds = [journal.state.runs[run].parameters.get("train.seed", seed) for run in source.runs]
    assert seeds == [seed, seed, seed + 1, seed + 1, seed + 2, seed + 2]
