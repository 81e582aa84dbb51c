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
from reid_tune.sweep.stages.confirm import RepeatLimit, choose_winner, make_confirm_runs

from ...helpers.searched_sweep import PARAMETERS, journal_with
from ...helpers.simulated_driver import drive, make_sweep, outcome

pytestmark = pytest.mark.usefixtures("no_fsync")

WHOLE = [("finished", 0.1), ("finished", 0.4), ("stopped", 0.9), ("finished", 0.5)]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepConfig:
    return make_sweep(tmp_path, confirm={"top": 2, "seeds": 2})


def confirmed(sweep: SweepConfig, folder: Path, objective: Any) -> tuple[Journal, dict[str, Any]]:
    journal = journal_with(folder, sweep, WHOLE)
    drive(make_confirm_runs(sweep, journal), objective)
    return journal, choose_winner(sweep, journal)


def by_base_lr(experiment: Experiment, epoch: int) -> float:
    return {0.0006: 0.5, 0.002: 0.9}.get(experiment.train.optim.base_lr, 0.1)


def alike(experiment: Experiment, epoch: int) -> float:
    return 0.7


def test_the_best_and_trial_0_are_repeated_with_the_same_seeds_and_splits(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    assert [trial.number for trial in select_candidates(sweep, journal.state)] == [0, 1, 3]
    source = make_confirm_runs(sweep, journal)
    assert drive(source) == [confirm_run(number, repeat) for repeat in (1, 2) for number in (0, 1, 3)]
    seeds = {"train.seed": sweep.experiment.train.seed, "dataset.validation_seed": 0}
    for number in (0, 1, 3):
        for repeat in (1, 2):
            own = journal.state.runs[confirm_run(number, repeat)].parameters
            assert own == PARAMETERS[number] | {key: seed + repeat for key, seed in seeds.items()}


def test_the_search_s_best_by_count_are_taken(tmp_path: Path, sweep: SweepConfig) -> None:
    one = make_sweep(tmp_path, confirm={"top": 1, "seeds": 2})
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    assert [trial.number for trial in select_candidates(one, journal.state)] == [0, 3]


def test_of_equal_configurations_the_best_is_taken_and_none_that_equals_the_spec(tmp_path: Path) -> None:
    name, momentum = "train.optim.name", "train.optim.momentum"
    space = {name: {"choice": ["Adam", "AdamW", "SGD"]}, momentum: {"uniform": [0.5, 0.9]}}
    sweep = make_sweep(tmp_path, space=space, confirm={"top": 3, "seeds": 1})
    adamw = [{name: "AdamW", momentum: value} for value in (0.6, 0.7)]  # Without SGD, momentum has no effect.
    parameters = [{}, *adamw, {name: "Adam", momentum: 0.5}, {name: "SGD", momentum: 0.5}]
    trials = [("finished", value) for value in (0.1, 0.4, 0.5, 0.6, 0.2)]
    journal = journal_with(tmp_path / "x", sweep, trials, parameters)
    assert [trial.number for trial in select_candidates(sweep, journal.state)] == [0, 2, 4]


def test_the_winner_is_the_one_that_beats_the_others_on_every_split(tmp_path: Path, sweep: SweepConfig) -> None:
    journal, result = confirmed(sweep, tmp_path / "x", by_base_lr)
    assert (result["winner"], result["best"], result["failed"]) == (3, 3, [])
    rows = {row["number"]: row for row in result["trials"]}
    for number, row in rows.items():
        files = [features_file(journal.folder, confirm_run(number, repeat)) for repeat in (1, 2)]
        scores = [score(read_features(file)) for file in files]
        assert row["values"] == [each.mAP for each in scores] and row["mean"] == np.mean(row["values"])
    against = rows[3]["against_trial0"]
    assert against["mean"] == pytest.approx(rows[3]["mean"] - rows[0]["mean"])
    assert against["low"] > 0 and against["repeats"] == 2
    assert rows[0]["best_against_it"] == against and rows[0]["against_trial0"] is None


class Limited:
    """A budget that allows some more repeats of all candidates."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed

    def next_repeat_limit(self, candidates: Sequence[RunState]) -> str | None:
        self.allowed -= 1
        return "hours" if self.allowed < 0 else None


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_budget_that_does_not_reach_ends_the_repeats_of_all_candidates(tmp_path: Path, allowed: int) -> None:
    sweep = make_sweep(tmp_path, confirm={"top": 2, "seeds": 3})
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    limit = RepeatLimit(sweep, journal, Limited(allowed))  # type: ignore[arg-type]
    repeats = range(1, 2 + allowed)
    started = drive(make_confirm_runs(sweep, journal, may_begin=limit), by_base_lr)
    assert started == [confirm_run(number, repeat) for repeat in repeats for number in (0, 1, 3)]
    assert limit.ended_by == ("hours" if allowed < 2 else None)
    result = choose_winner(sweep, journal)
    assert (result["winner"], result["repeats"]) == (3, 1 + allowed)
    assert all(len(row["values"]) == 1 + allowed for row in result["trials"])


def test_repeats_that_have_begun_are_completed_for_all_candidates(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, confirm={"top": 2, "seeds": 2})
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    source = make_confirm_runs(sweep, journal, may_begin=RepeatLimit(sweep, journal, Limited(1)))  # type: ignore[arg-type]
    for _ in range(4):
        assert source.next_attempt() is not None
    limit = RepeatLimit(sweep, journal, Limited(0))  # type: ignore[arg-type]
    drive(make_confirm_runs(sweep, journal, may_begin=limit), by_base_lr)
    assert choose_winner(sweep, journal)["repeats"] == 2 and limit.ended_by is None


def test_within_noise_the_earlier_one_stays(tmp_path: Path, sweep: SweepConfig) -> None:
    _, result = confirmed(sweep, tmp_path / "x", alike)
    assert result["winner"] == 0
    assert all(row["mean"] == result["trials"][0]["mean"] for row in result["trials"])


def test_within_noise_the_cheaper_one_stays(tmp_path: Path) -> None:
    objectives = [{"metric": "mAP"}, {"metric": "gflops"}]
    sweep = make_sweep(tmp_path, confirm={"top": 2, "seeds": 2}, objective=objectives)
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    for number, trial in enumerate(journal.state.trials):
        trial.costs["gflops"] = 9.0 - number
    assert [trial.number for trial in select_candidates(sweep, journal.state)] == [0, 3], (
        "trial 1 costs more than the better 3"
    )
    drive(make_confirm_runs(sweep, journal), alike)
    assert choose_winner(sweep, journal)["winner"] == 3


def test_a_trial_that_fails_once_is_out(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = journal_with(tmp_path / "x", sweep, WHOLE)
    source = make_confirm_runs(sweep, journal)
    for _ in range(3):
        attempt = source.next_attempt()
    assert attempt is not None and attempt.run == confirm_run(3, 1)
    assert not source.report(attempt.run, {"epoch": 1, "loss": float("nan")})
    for run in (confirm_run(0, 1), confirm_run(1, 1)):
        source.recorder.pending_runs.append(run)
    drive(source, by_base_lr)
    result = choose_winner(sweep, journal)
    assert (result["winner"], result["failed"]) == (1, [3])


def test_without_a_full_length_trial_there_is_nothing_to_confirm(tmp_path: Path, sweep: SweepConfig) -> None:
    journal = journal_with(tmp_path / "x", sweep, [("failed", 0.1), ("stopped", 0.2), ("failed", 0.3)])
    with pytest.raises(RunFailedError, match="no trial of the search reached its last epoch: out of memory"):
        make_confirm_runs(sweep, journal)


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
        source = make_confirm_runs(sweep, resumed)
        drive(source, by_base_lr)
        assert source.is_done() and outcome(resumed) == outcome(journal), f"killed after event {count}"
        assert choose_winner(sweep, resumed) == result
        resumed.__exit__()
