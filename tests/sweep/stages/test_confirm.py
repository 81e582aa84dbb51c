import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_tune.config.experiment import Experiment
from reid_tune.errors import RunFailedError
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.score import score
from reid_tune.execution.fixed_runs import features_file
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import RunState, confirm_run
from reid_tune.search.candidates import select_candidates
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.confirm import RepeatLimit, choose_winner, confirm_sources

from ...helpers.searched_sweep import PARAMETERS, journal_with
from ...helpers.simulated_driver import drive, make_sweep, outcome

pytestmark = pytest.mark.usefixtures("no_fsync")

WHOLE = [("finished", 0.1), ("finished", 0.4), ("stopped", 0.9), ("finished", 0.5)]
# Trials 0, 1 and 3 are full-length: 1 and 3 race in repeat 1, and 2 and 3 compare the better one with trial 0.
RACE = [confirm_run(3, 1), confirm_run(1, 1)]


def compared_runs(number: int, repeats: Sequence[int] = (2, 3)) -> list[str]:
    return [confirm_run(trial, repeat) for repeat in repeats for trial in (0, number)]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepConfig:
    return make_sweep(tmp_path, confirm={"candidates": 2, "repeats": 2})


def drive_all(sweep: SweepConfig, journal: Journal, objective: Any, limit: RepeatLimit | None = None) -> list[str]:
    """Run all repeats in this process; their names in order."""
    started = []
    for source in confirm_sources(sweep, journal, limit or RepeatLimit(journal)):
        started += drive(source, objective)
        assert source.is_done()
    return started


def confirmed(sweep: SweepConfig, folder: Path, objective: Any) -> tuple[Journal, dict[str, Any]]:
    journal = journal_with(folder, sweep, WHOLE)
    drive_all(sweep, journal, objective)
    return journal, choose_winner(sweep, journal)


def by_base_lr(experiment: Experiment, epoch: int) -> float:
    return {0.0006: 0.5, 0.002: 0.9}.get(experiment.train.optim.base_lr, 0.1)


def alike(experiment: Experiment, epoch: int) -> float:
    return 0.7


def test_candidates_race_and_the_selected_one_and_trial_0_have_further_repeats(
    tmp_path: Path, sweep: SweepConfig
) -> None:
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    assert [trial.number for trial in select_candidates(sweep, journal.state)] == [0, 3, 1]
    assert drive_all(sweep, journal, by_base_lr) == RACE + compared_runs(3)
    selection = journal.state.selection
    assert selection and (selection.trial, selection.rounds, selection.ended_by) == (3, 1, None)
    seeds = {"train.seed": sweep.experiment.train.seed, "dataset.validation_seed": 0}
    for run in RACE + compared_runs(3):
        number, repeat = map(int, run.removeprefix("confirm/").split("-"))
        parameters = PARAMETERS[number] | {key: seed + repeat for key, seed in seeds.items()}
        assert journal.state.runs[run].parameters == parameters


def test_the_race_s_seeds_and_splits_are_never_those_of_the_comparison(tmp_path: Path) -> None:
    for candidates in (2, 3, 6):
        sweep = make_sweep(tmp_path / str(candidates), confirm={"candidates": candidates, "repeats": 2})
        journal = journal_with(tmp_path / "x" / str(candidates), sweep, WHOLE)
        started = drive_all(sweep, journal, by_base_lr)
        race = {int(run.rpartition("-")[2]) for run in started if "confirm/0001" in run}
        compared = {int(run.rpartition("-")[2]) for run in started if "confirm/0000" in run}
        assert race and len(compared) == 2 and max(race) < min(compared)


def test_one_candidate_is_compared_without_a_race(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, confirm={"candidates": 1, "repeats": 2})
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    assert drive_all(sweep, journal, by_base_lr) == compared_runs(3, (1, 2))
    result = choose_winner(sweep, journal)
    assert (result["winner"], result["rounds"], result["race"]) == (3, 0, [{"number": 3, "values": []}])


def test_of_equal_configurations_the_best_is_taken_and_none_that_equals_the_spec(tmp_path: Path) -> None:
    name, momentum = "train.optim.name", "train.optim.momentum"
    space = {name: {"choice": ["Adam", "AdamW", "SGD"]}, momentum: {"uniform": [0.5, 0.9]}}
    sweep = make_sweep(tmp_path, space=space, confirm={"candidates": 3, "repeats": 1})
    adamw = [{name: "AdamW", momentum: value} for value in (0.6, 0.7)]  # Without SGD, momentum has no effect.
    parameters = [{}, *adamw, {name: "Adam", momentum: 0.5}, {name: "SGD", momentum: 0.5}]
    trials = [("finished", value) for value in (0.1, 0.4, 0.5, 0.6, 0.2)]
    journal = journal_with(tmp_path / "x", sweep, trials, parameters)
    assert [trial.number for trial in select_candidates(sweep, journal.state)] == [0, 2, 4]


def test_the_selected_trial_wins_if_it_is_better_on_the_further_splits(tmp_path: Path, sweep: SweepConfig) -> None:
    journal, result = confirmed(sweep, tmp_path / "x", by_base_lr)
    assert (result["winner"], result["selected"], result["failed"], result["repeats"]) == (3, 3, [], 2)
    rows = {row["number"]: row for row in result["trials"]}
    assert list(rows) == [0, 3]
    for number, row in rows.items():
        assert row["runs"] == [confirm_run(number, repeat) for repeat in (2, 3)]
        results = [score(read_features(features_file(journal.folder, run))) for run in row["runs"]]
        assert row["values"] == [result.mAP for result in results] and row["mean"] == np.mean(row["values"])
    difference = rows[3]["against_trial0"]
    assert difference["mean"] == pytest.approx(rows[3]["mean"] - rows[0]["mean"])
    assert difference["repeats"] == 2 and rows[0]["against_trial0"] is None
    assert [row["number"] for row in result["race"]] == [3, 1] and result["race"][0]["values"] == [0.9]


def test_trial_0_wins_if_the_selected_trial_is_not_better(tmp_path: Path, sweep: SweepConfig) -> None:
    _, result = confirmed(sweep, tmp_path / "x", alike)
    assert (result["winner"], result["selected"]) == (0, 1), "of equal contestants the earlier one is selected"
    assert all(row["mean"] == result["trials"][0]["mean"] for row in result["trials"])


@pytest.mark.parametrize(("repeats", "has_interval"), [(1, False), (5, True)])
def test_one_repeat_proves_nothing(tmp_path: Path, repeats: int, has_interval: bool) -> None:
    sweep = make_sweep(tmp_path, confirm={"candidates": 1, "repeats": repeats})
    _, result = confirmed(sweep, tmp_path / "x", by_base_lr)
    difference = result["trials"][1]["against_trial0"]
    assert (result["winner"], difference["low"] is not None) == (3, has_interval)
    assert not has_interval or difference["low"] > 0


class Limited:
    """A budget that allows a number of further repeats of the trials that are compared."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed

    def next_repeat_limit(self, trials: Sequence[RunState]) -> str | None:
        self.allowed -= 1
        return "hours" if self.allowed < 0 else None


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_budget_that_does_not_reach_ends_the_race_and_then_the_repeats(tmp_path: Path, allowed: int) -> None:
    sweep = make_sweep(tmp_path, confirm={"candidates": 2, "repeats": 3})
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    limit = RepeatLimit(journal, Limited(allowed))  # type: ignore[arg-type]
    started = drive_all(sweep, journal, by_base_lr, limit)
    race, repeats = (RACE, 1 + max(0, allowed - 1)) if allowed else ([], 1)
    assert started == race + compared_runs(3, range(2, 2 + repeats)) and limit.ended_by == "hours"
    selection = journal.state.selection
    assert selection and selection.ended_by == (None if allowed else "hours")
    result = choose_winner(sweep, journal)
    assert (result["winner"], result["repeats"], result["rounds"]) == (3, repeats, len(race) // 2)
    assert all(len(row["values"]) == repeats for row in result["trials"])


def test_a_repeat_that_has_begun_is_completed_for_both_trials(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    sources = confirm_sources(sweep, journal, RepeatLimit(journal))
    drive(next(sources), by_base_lr)
    comparison = next(sources)
    for _ in range(3):
        assert comparison.next_attempt() is not None
    limit = RepeatLimit(journal, Limited(0))  # type: ignore[arg-type]
    drive_all(sweep, journal, by_base_lr, limit)
    assert choose_winner(sweep, journal)["repeats"] == 2 and limit.ended_by is None


def test_a_cheaper_trial_that_loses_nothing_wins(tmp_path: Path) -> None:
    objectives = [{"metric": "mAP"}, {"metric": "gflops"}]
    sweep = make_sweep(tmp_path, confirm={"candidates": 2, "repeats": 2}, objective=objectives)
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    for number, trial in enumerate(journal.state.trials):
        trial.costs["gflops"] = 9.0 - number
    assert [trial.number for trial in select_candidates(sweep, journal.state)] == [0, 3], (
        "trial 1 costs more than the better 3"
    )
    drive_all(sweep, journal, alike)
    assert choose_winner(sweep, journal)["winner"] == 3


@pytest.mark.parametrize(("failing", "winner"), [(confirm_run(3, 2), 0), (confirm_run(0, 2), 3)])
def test_a_trial_that_fails_in_a_repeat_is_out(tmp_path: Path, sweep: SweepConfig, failing: str, winner: int) -> None:
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    for source in confirm_sources(sweep, journal, RepeatLimit(journal)):
        if failing in source.runs:
            while (attempt := source.next_attempt()) and attempt.run != failing:
                source.recorder.pending_runs.append(attempt.run)
                source.recorder.pending_runs.remove(attempt.run)
            assert attempt is not None
            assert not source.report(attempt.run, {"epoch": 1, "loss": float("nan")})
            source.recorder.pending_runs += [
                run for run in source.runs if run in journal.state.runs and source.is_running(run)
            ]
        drive(source, by_base_lr)
    result = choose_winner(sweep, journal)
    failed = int(failing.removeprefix("confirm/")[:4])
    assert (result["winner"], result["failed"]) == (winner, [failed])
    assert all(row["against_trial0"] is None for row in result["trials"])


def test_without_a_full_length_trial_there_is_nothing_to_confirm(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = journal_with(tmp_path / "x", sweep, [("failed", 0.1), ("stopped", 0.2), ("failed", 0.3)])
    with pytest.raises(RunFailedError, match="no trial of the search reached its last epoch: out of memory"):
        drive_all(sweep, journal, by_base_lr)


def test_a_trial_0_alone_is_repeated_for_the_registry(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = journal_with(tmp_path / "x", sweep, WHOLE[:1])
    assert drive_all(sweep, journal, by_base_lr) == [confirm_run(0, 2), confirm_run(0, 3)]
    result = choose_winner(sweep, journal)
    assert (result["winner"], result["selected"], result["race"]) == (0, None, [])


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.integration)])
def test_a_driver_killed_after_any_event_changes_nothing(tmp_path: Path, sweep: SweepConfig, step: int) -> None:
    journal, result = confirmed(sweep, tmp_path / "whole", by_base_lr)
    journal.__exit__()
    lines = (tmp_path / "whole" / EVENTS).read_bytes().splitlines(keepends=True)
    searched = 1 + 4 * len(WHOLE)
    for count in range(searched, len(lines) + 1, step):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        (folder / EVENTS).write_bytes(b"".join(lines[:count]))
        resumed = Journal(folder)
        drive_all(sweep, resumed, by_base_lr)
        assert outcome(resumed) == outcome(journal), f"killed after event {count}"
        assert choose_winner(sweep, resumed) == result
        resumed.__exit__()
