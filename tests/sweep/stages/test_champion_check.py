"""The comparison of a sweep's winner with the registered champion, in the repeats of the stage `confirm`."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_tune.config.experiment import Experiment
from reid_tune.evaluation.features import read_features
from reid_tune.evaluation.score import score
from reid_tune.execution.fixed_runs import features_file
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.events import ChampionRead
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import confirm_run
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.stages.champion_check import check_against_champion, with_champion
from reid_tune.sweep.stages.compared_trial import compared_trial
from reid_tune.sweep.stages.confirm import RepeatLimit, choose_winner, confirm_sources

from ...helpers.searched_sweep import journal_with
from ...helpers.simulated_driver import drive, make_sweep, outcome

pytestmark = pytest.mark.usefixtures("no_fsync")

SEARCHED = [("finished", 0.1), ("finished", 0.4), ("stopped", 0.9), ("finished", 0.5)]
CHAMPION = ChampionRead(version=7, parameters={"train.optim.base_lr": 0.005, "train.num_epochs": 4})
SCORES = {0.0006: 0.5, 0.002: 0.9, 0.005: 0.4}  # by learning rate: trial 1, trial 3, the champion


def by_base_lr(experiment: Experiment, epoch: int) -> float:
    return SCORES.get(experiment.train.optim.base_lr, 0.1)


def confirmed(
    folder: Path, champion: ChampionRead | None, scores: Any = by_base_lr, **values: Any
) -> tuple[Journal, dict[str, Any]]:
    sweep = make_sweep(folder, **({"confirm": {"candidates": 2, "repeats": 5}} | values))
    journal = journal_with(folder / "x", sweep, SEARCHED)
    if champion:
        journal.emit(champion)
    for number, trial in enumerate(journal.state.trials):
        trial.costs |= dict.fromkeys(sweep.file.costs, 9.0 - number)
    drive_all(sweep, journal, scores)
    return journal, choose_winner(sweep, journal)


def drive_all(sweep: SweepConfig, journal: Journal, objective: Any) -> None:
    for source in confirm_sources(sweep, journal, RepeatLimit(journal)):
        drive(source, objective)


def verdict_of(result: Mapping[str, Any]) -> tuple[bool, str]:
    verdict = result["champion"]["verdict"]
    return verdict["is_accepted"], verdict["reason"]


def test_the_champion_is_trained_on_the_same_seeds_and_splits_and_compared_once(tmp_path: Path) -> None:
    journal, result = confirmed(tmp_path, CHAMPION)
    runs = [f"confirm/v7-{repeat}" for repeat in range(2, 7)]
    assert result["champion"]["runs"] == runs
    for repeat, run in enumerate(runs, 2):
        seeds = ("train.seed", "dataset.validation_seed")
        own, other = journal.state.runs[run].parameters, journal.state.runs[confirm_run(0, repeat)].parameters
        assert own == CHAMPION.parameters | {key: other[key] for key in seeds}
    champion, winner = (
        [score(read_features(features_file(journal.folder, run))).mAP for run in names]
        for names in (runs, next(row for row in result["trials"] if row["number"] == 3)["runs"])
    )
    verdict = result["champion"]["verdict"]
    assert verdict["difference"]["mean"] == pytest.approx(np.mean(winner) - np.mean(champion))
    assert verdict["against"] == 7 and verdict["is_accepted"] and verdict["difference"]["low"] > 0
    assert "points of mAP against version 7 in 5 repeats, 97.5 % interval as either of two" in verdict["reason"]


def test_a_winner_that_is_not_proven_better_is_refused(tmp_path: Path) -> None:
    _, result = confirmed(tmp_path, CHAMPION, lambda experiment, epoch: 0.7)
    is_accepted, reason = verdict_of(result)
    assert not is_accepted and reason.startswith("it is not proven better: +0.0 (")


def test_the_sweep_s_objective_is_compared(tmp_path: Path) -> None:
    journal, _ = confirmed(tmp_path, CHAMPION)
    sweep = make_sweep(tmp_path, objective={"metric": "Rank-1"})
    pair, repeats = [journal.state.trials[number] for number in (0, 3)], range(2, 7)
    winner = compared_trial(sweep, journal, pair[1], repeats)
    result = check_against_champion(sweep, journal, winner, pair, repeats)
    assert result is not None
    champion = [score(read_features(features_file(journal.folder, run))) for run in result["runs"]]
    assert result["values"] == [one.per_query["Rank-1"].mean() for one in champion]
    assert "points of Rank-1 against version 7" in result["verdict"]["reason"]


@pytest.mark.parametrize(
    ("cost", "champion_score", "winner_score", "is_accepted", "reason"),
    [
        (
            12.0,
            0.9,
            0.9,
            True,
            "it costs less (gflops 6 instead of 12) and is expected to lose at most confirm.margin: ",
        ),
        (12.0, 0.9, 0.6, False, "it is not proven better: "),
        (1.0, 0.9, 0.9, False, "version 7 costs less and is expected to lose at most confirm.margin (gflops 6 in"),
        (1.0, 0.1, 0.9, True, "+"),
    ],
)
def test_with_costs_the_cheaper_of_two_within_the_margin_is_preferred(
    tmp_path: Path, cost: float, champion_score: float, winner_score: float, is_accepted: bool, reason: str
) -> None:
    champion = ChampionRead(version=7, parameters={"train.optim.base_lr": 0.005}, costs={"gflops": cost})

    def objective(experiment: Experiment, epoch: int) -> float:
        return {0.005: champion_score, 0.002: winner_score}.get(experiment.train.optim.base_lr, 0.1)

    objectives = [{"metric": "mAP"}, {"metric": "gflops"}]
    _, result = confirmed(tmp_path, champion, objective, objective=objectives)
    assert result["winner"] == 3
    assert verdict_of(result)[0] == is_accepted and verdict_of(result)[1].startswith(reason), verdict_of(result)


def test_a_champion_with_the_recipe_of_trial_0_is_not_trained_twice(tmp_path: Path) -> None:
    journal, result = confirmed(tmp_path, ChampionRead(version=7))
    assert not any("v7" in run for run in journal.state.runs)
    assert result["champion"]["runs"] == result["trials"][0]["runs"]
    assert verdict_of(result)[0] and "in 5 repeats, 95 % interval" in verdict_of(result)[1]
    shutil.rmtree(tmp_path / "x")
    _, alike = confirmed(tmp_path, ChampionRead(version=7), lambda experiment, epoch: 0.7)
    assert alike["winner"] == 0
    assert verdict_of(alike) == (
        False,
        "its recipe is that of version 7, so a comparison of recipes cannot prefer it",
    )


@pytest.mark.parametrize(
    ("champion", "expected"),
    [
        (None, None),
        (ChampionRead(), None),
        (ChampionRead(problem="the registry could not be read: no answer"), (None, "the registry could not be read")),
        (ChampionRead(version=7, problem="its weights are missing"), (7, "its weights are missing")),
    ],
)
def test_a_champion_that_cannot_be_compared_leaves_a_reason(
    tmp_path: Path, champion: ChampionRead | None, expected: Any
) -> None:
    _, result = confirmed(tmp_path, champion)
    if expected is None:
        assert result["champion"] is None
        return
    assert result["champion"]["version"] == expected[0]
    assert not verdict_of(result)[0] and verdict_of(result)[1].startswith(expected[1])


def test_a_champion_is_not_trained_without_another_trial(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    journal = journal_with(tmp_path / "x", sweep, SEARCHED)
    journal.emit(CHAMPION)
    assert with_champion(sweep, journal.state, []) == []


def test_a_failed_repeat_of_the_champion_proves_nothing(tmp_path: Path) -> None:
    _, result = confirmed(
        tmp_path,
        CHAMPION,
        lambda experiment, epoch: float("nan") if experiment.train.num_epochs == 4 else by_base_lr(experiment, epoch),
    )
    assert (
        verdict_of(result) == (False, "a repeat of version 7 failed: see its log in confirm/") and result["winner"] == 3
    )


def test_a_driver_killed_after_any_event_changes_nothing(tmp_path: Path) -> None:
    journal, result = confirmed(tmp_path, CHAMPION, confirm={"candidates": 2, "repeats": 2})
    journal.__exit__()
    sweep = make_sweep(tmp_path, confirm={"candidates": 2, "repeats": 2})
    lines = (tmp_path / "x" / EVENTS).read_bytes().splitlines(keepends=True)
    for count in range(2 + 4 * len(SEARCHED), len(lines) + 1, 9):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "x", folder)
        (folder / EVENTS).write_bytes(b"".join(lines[:count]))
        resumed = Journal(folder)
        drive_all(sweep, resumed, by_base_lr)
        assert outcome(resumed) == outcome(journal), f"killed after event {count}"
        assert choose_winner(sweep, resumed) == result
        resumed.__exit__()
