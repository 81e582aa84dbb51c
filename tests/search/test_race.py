"""The race among the candidates, round by round, as a function of the log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from reid_tune.journal.events import EpochReported, RunEnded, RunSuggested
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import confirm_run
from reid_tune.search.race import Race, first_proof_repeat, race_sizes, replay_race
from reid_tune.search_space.load import SweepConfig

from ..helpers.searched_sweep import journal_with
from ..helpers.simulated_driver import EPOCHS, make_sweep

pytestmark = pytest.mark.usefixtures("no_fsync")

RATES: list[dict[str, Any]] = [{}] + [{"train.optim.base_lr": 0.0001 * number} for number in range(1, 7)]
SEARCHED = [("finished", 0.1), *(("finished", 0.3 + 0.01 * number) for number in range(1, 7))]  # trial 6 is the best


def searched(folder: Path, **values: Any) -> tuple[SweepConfig, Journal]:
    sweep = make_sweep(folder, **values)
    return sweep, journal_with(folder / "log", sweep, SEARCHED, RATES)


def play(journal: Journal, repeat: int, scores: Mapping[int, float | None]) -> None:
    """Add a round with these scores by trial; None is a failure."""
    for number, value in scores.items():
        run = confirm_run(number, repeat)
        journal.emit(RunSuggested(run=run, parameters={}))
        if value is not None:
            journal.emit(EpochReported(run=run, epoch=EPOCHS, metrics={"mAP": value}))
        journal.emit(RunEnded(run=run, state="failed" if value is None else "finished", epoch=EPOCHS))


def numbers(race: Race) -> Sequence[int]:
    return [trial.number for trial in race.contestants]


def selected(race: Race) -> int | None:
    return race.selected.number if race.selected else None


@pytest.mark.parametrize(
    ("candidates", "sizes"), [(1, []), (2, [2]), (3, [3, 2]), (6, [6, 3, 2]), (8, [8, 4, 2]), (9, [9, 5, 3, 2])]
)
def test_half_of_the_candidates_continue(tmp_path: Path, candidates: int, sizes: list[int]) -> None:
    assert race_sizes(candidates) == sizes
    sweep = make_sweep(tmp_path, confirm={"candidates": candidates})
    assert first_proof_repeat(sweep) == len(sizes) + 1


def test_the_better_half_by_the_mean_of_all_rounds_continues(tmp_path: Path) -> None:
    sweep, journal = searched(tmp_path)
    race = replay_race(sweep, journal.state)
    assert (race.rounds, numbers(race), selected(race)) == (0, [6, 5, 4, 3, 2, 1], 6)
    play(journal, 1, {6: 0.2, 5: 0.5, 4: 0.3, 3: 0.6, 2: 0.4, 1: 0.1})
    race = replay_race(sweep, journal.state)
    assert (race.rounds, numbers(race), selected(race)) == (1, [3, 5, 2], 3)
    play(journal, 2, {3: 0.2, 5: 0.5, 2: 0.5})
    race = replay_race(sweep, journal.state)
    assert (race.rounds, numbers(race), selected(race)) == (2, [5, 2], 5)
    play(journal, 3, {5: 0.2, 2: 0.6})
    race = replay_race(sweep, journal.state)
    assert (race.rounds, numbers(race), selected(race)) == (3, [], 2)
    assert race.scores == {6: (0.2,), 5: (0.5, 0.5, 0.2), 4: (0.3,), 3: (0.6, 0.2), 2: (0.4, 0.5, 0.6), 1: (0.1,)}


def test_a_round_counts_when_all_its_runs_have_ended(tmp_path: Path) -> None:
    sweep, journal = searched(tmp_path, confirm={"candidates": 2})
    play(journal, 1, {6: 0.2})
    assert replay_race(sweep, journal.state).rounds == 0
    journal.emit(RunSuggested(run=confirm_run(5, 1), parameters={}))
    assert replay_race(sweep, journal.state).rounds == 0
    journal.emit(EpochReported(run=confirm_run(5, 1), epoch=EPOCHS, metrics={"mAP": 0.3}))
    journal.emit(RunEnded(run=confirm_run(5, 1), state="finished", epoch=EPOCHS))
    race = replay_race(sweep, journal.state)
    assert (race.rounds, numbers(race), selected(race)) == (1, [], 5)


def test_a_trial_that_collapses_once_is_not_selected_although_it_is_earlier(tmp_path: Path) -> None:
    sweep, journal = searched(tmp_path, confirm={"candidates": 4})
    play(journal, 1, {6: 0.5, 5: 0.6, 4: 0.5, 3: 0.6})
    play(journal, 2, {5: 0.60, 3: 0.51})
    assert selected(replay_race(sweep, journal.state)) == 5, "trial 3 has collapsed once, by 9 points"


def test_a_failed_trial_is_out_and_without_any_left_none_is_selected(tmp_path: Path) -> None:
    sweep, journal = searched(tmp_path, confirm={"candidates": 3})
    play(journal, 1, {6: None, 5: 0.2, 4: 0.4})
    race = replay_race(sweep, journal.state)
    assert (numbers(race), selected(race)) == ([4, 5], 4)
    play(journal, 2, {5: None, 4: None})
    race = replay_race(sweep, journal.state)
    assert (race.rounds, numbers(race), selected(race)) == (2, [], None)


COSTS = {"objective": [{"metric": "mAP"}, {"metric": "gflops"}]}


def with_costs(folder: Path, **confirm: Any) -> tuple[SweepConfig, Journal]:
    sweep, journal = searched(folder, confirm={"candidates": 3, **confirm}, **COSTS)
    for trial in journal.state.trials:
        trial.costs["gflops"] = 1.0 + trial.number
    return sweep, journal


def test_with_costs_trials_within_the_margin_continue_and_the_cheapest_is_selected(tmp_path: Path) -> None:
    sweep, journal = with_costs(tmp_path)
    play(journal, 1, {6: 0.502, 5: 0.501, 4: 0.5})
    assert numbers(replay_race(sweep, journal.state)) == [6, 5, 4]
    play(journal, 2, {6: 0.602, 5: 0.601, 4: 0.6})
    assert selected(replay_race(sweep, journal.state)) == 4


def test_with_costs_trials_that_lose_more_than_the_margin_are_out(tmp_path: Path) -> None:
    sweep, journal = with_costs(tmp_path, margin=0.1)
    play(journal, 1, {6: 0.502, 5: 0.501, 4: 0.5})
    assert numbers(replay_race(sweep, journal.state)) == [6, 5]
    play(journal, 2, {6: 0.702, 5: 0.601})
    assert selected(replay_race(sweep, journal.state)) == 6
