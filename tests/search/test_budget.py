import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from reid_tune.errors import InputError
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.costs import Cost, EpochTiming
from reid_tune.journal.events import (
    EndState,
    EpochReported,
    Event,
    RunEnded,
    RunSuggested,
    SpaceChanged,
    StageStarted,
    WorkerStarted,
)
from reid_tune.journal.state import SweepState, trial_run
from reid_tune.search.budget import BudgetTracker, require_gpus_for_gpu_hours
from reid_tune.search.candidates import select_candidates
from reid_tune.search.reserve import FullLength, estimate_later_stages
from reid_tune.search_space.load import SweepConfig

from ..helpers.events import attempt_started, driver_started, sweep_header
from ..helpers.simulated_driver import EPOCHS, make_sweep

HOUR = 3600
TIMING = EpochTiming(start=HOUR / 2, epoch=HOUR)  # a trial of 6 epochs takes 6.5 hours


def test_what_the_later_stages_need(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"confirm": {"candidates": 3, "repeats": 4}, "refit": {"seeds": 2}}
    sweep = make_sweep(tmp_path, **sections, resources={"workers": 1, "refit_workers": 2})
    later = estimate_later_stages(
        sweep,
        [FullLength(TIMING, EPOCHS)] * 4,
        StageResources(ResourceRequest(2, 1), 4),
        StageResources(ResourceRequest(4, 2), 3),
    )
    runs = 3 + 2 + 2 * 4  # two rounds of the race, and four repeats of two trials; four runs at once
    assert (later["confirm"].runs, later["confirm"].epochs) == (runs, 6 * runs)
    assert later["confirm"].cost == Cost(hours=4 * 6.5, gpu_hours=runs * 6.5, cpu_hours=runs * 13)
    refit = 0.5 + 6 / 0.8 / 2  # with the fifth that was held out, on two workers
    assert (later["refit"].runs, later["refit"].epochs) == (4, 24)
    assert later["refit"].cost == Cost(hours=2 * refit, gpu_hours=4 * 2 * refit, cpu_hours=4 * 4 * refit)


def test_one_trial_is_confirmed_and_refitted_alone(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 1}, confirm={"repeats": 2})
    later = estimate_later_stages(
        sweep, [FullLength(TIMING, EPOCHS)], StageResources(ResourceRequest(), 1), StageResources(ResourceRequest(), 1)
    )
    assert [stage.runs for stage in later.values()] == [2, 1]


class Play:
    """A search in hours, by hand: confirm needs two runs of 6.5, refit two of 8, one by one."""

    kept = 2 * 6.5 + 2 * (0.5 + 6 / 0.8)

    def __init__(
        self,
        folder: Path,
        at_once: int = 2,
        gpus: float = 0,
        confirm: Mapping[str, int] = {"candidates": 1, "repeats": 1},
        **budget: Any,
    ) -> None:
        sweep = make_sweep(folder, budget={"trials": 100, **budget}, confirm=dict(confirm))
        self.now = 0.0
        self.state = SweepState()
        self.holds = ResourceRequest(2, gpus)
        trials, refits = StageResources(self.holds, at_once), StageResources(self.holds, 1)
        self.tracker = BudgetTracker(sweep, trials, refits, TIMING, lambda: HOUR * self.now)
        self.emit(sweep_header())
        self.emit(driver_started())
        self.emit(StageStarted(stage="search"))

    def emit(self, event: Event) -> None:
        event = replace(event, time=HOUR * self.now)
        self.state.apply(event)
        self.tracker.apply(event, self.state)

    def begin(self, number: int, **parameters: Any) -> None:
        self.emit(RunSuggested(run=trial_run(number), parameters=parameters))
        self.emit(attempt_started(run=trial_run(number), attempt=1, cpus=self.holds.cpus, gpus=self.holds.gpus))
        self.emit(WorkerStarted(run=trial_run(number)))

    def report(self, number: int, epoch: int, value: float = 0.5) -> None:
        self.emit(EpochReported(run=trial_run(number), epoch=epoch, metrics={"mAP": value}))

    def end(self, number: int, state: EndState = "finished", value: float | None = None) -> None:
        if value is not None:
            self.report(number, EPOCHS, value)
        self.emit(RunEnded(run=trial_run(number), state=state, epoch=EPOCHS))


def test_without_limits_another_trial_may_always_begin(tmp_path: Path) -> None:
    play = Play(tmp_path)
    for number in range(50):
        play.begin(number)
        play.now += 100
        play.end(number, "failed")
        assert play.tracker.next_trial_limit() is play.tracker.exceeded_limit() is None


def test_hours_are_reserved_for_running_trials_and_one_more(tmp_path: Path) -> None:
    play = Play(tmp_path, hours=6.5 + 16 + 10)  # The two repeats run at once.
    assert play.tracker.next_trial_limit() is None
    play.begin(0)
    assert play.tracker.next_trial_limit() is None
    play.begin(1)
    assert (
        play.tracker.next_trial_limit() == "hours"
    )  # A third begins when one of them is done, so 13 hours after the first.
    play.now = 1
    play.end(1, "stopped")
    play.now = 3.4
    assert play.tracker.next_trial_limit() is None
    play.now = 3.6  # Trial 0 has reported nothing and is still taken to need 6.5 hours.
    assert (play.tracker.next_trial_limit(), play.tracker.exceeded_limit()) == ("hours", None)
    play.now = 10
    assert play.tracker.exceeded_limit() == "hours"


def test_cpu_hours_are_spent_by_all_trials_together(tmp_path: Path) -> None:
    play = Play(tmp_path, cpu_hours=2 * (Play.kept + 6.5 + 4))
    play.begin(0)
    assert play.tracker.next_trial_limit() == "cpu_hours"
    for epoch in range(1, 4):
        play.now += 1
        play.report(0, epoch)
    # 3 hours are spent and 3 are left; the pace is now measured: nothing is lost at the start.
    assert play.tracker.next_trial_limit() is None
    play.begin(1)
    assert play.tracker.next_trial_limit() == "cpu_hours"
    play.now += 10
    assert play.tracker.exceeded_limit() == "cpu_hours"


def test_the_next_trial_is_expected_to_take_what_ended_ones_did(tmp_path: Path) -> None:
    play = Play(tmp_path, cpu_hours=2 * (Play.kept + 14))
    play.begin(0)
    play.now = 6.5
    play.end(0, value=0.5)
    assert play.tracker.next_trial_limit() is None  # 6.5 + 6.5
    play.begin(1)
    play.now = 8
    play.report(1, 1)
    play.end(1, "stopped")
    assert play.tracker.next_trial_limit() is None  # 8 + 0.5 + 3.5
    play.begin(2)
    assert play.tracker.next_trial_limit() == "cpu_hours"


def test_trials_with_more_epochs_need_more(tmp_path: Path) -> None:
    play = Play(tmp_path, cpu_hours=2 * (Play.kept + 30))
    play.begin(0)
    assert play.tracker.next_trial_limit() is None
    play.begin(1, **{"train.num_epochs": 18})
    assert play.tracker.next_trial_limit() == "cpu_hours"


def test_the_reserve_has_the_times_of_the_best_trials(tmp_path: Path) -> None:
    """Trial 2 takes four times as long as the median, and is the one that will be confirmed and refitted."""
    play = Play(tmp_path, at_once=1, cpu_hours=1e9)
    for number, (hours, value) in enumerate([(1, 0.5), (1, 0.4), (4, 0.9)]):
        play.begin(number, **{"train.optim.base_lr": (number + 1) / 1e4})
        for epoch in range(1, EPOCHS + 1):
            play.now += hours
            play.report(number, epoch, value)
        play.end(number)
    assert play.tracker.timing.epoch == HOUR
    confirm, refit = 6 * (1 + 4), 6 * (1 + 4) / 0.8
    start = play.tracker.timing.start / HOUR
    assert play.tracker.reserve().cpu_hours == pytest.approx(2 * (confirm + refit + 4 * start))


def test_candidates_are_selected_only_with_a_limit_and_after_the_end_of_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    select = Mock(wraps=select_candidates)
    monkeypatch.setattr("reid_tune.search.budget.select_candidates", select)
    for limits, expected in ([], 0), (["hours", "cpu_hours"], 3):
        play = Play(tmp_path, **dict.fromkeys(limits, 1e9))
        for number in range(3):
            play.begin(number, **{"train.optim.base_lr": (number + 1) / 1e4})
            play.end(number, value=0.5)
            for _ in range(5):
                assert play.tracker.next_trial_limit() is play.tracker.exceeded_limit() is None
        assert select.call_count == expected


def test_a_repeat_needs_the_budget_for_all_of_its_trials_and_for_the_refits(tmp_path: Path) -> None:
    needed = 2 * 6.5 + 2 * (0.5 + 6 / 0.8)
    play = Play(tmp_path, at_once=1, cpu_hours=2 * (13 + needed) + 0.1)
    for number in range(2):
        play.begin(number)
        play.now += 6.5
        play.end(number)
    assert play.tracker.next_repeat_limit(play.state.trials) is None
    play.emit(RunSuggested(run="confirm/0000-1", parameters={}))
    assert play.tracker.next_repeat_limit(play.state.trials) == "cpu_hours"


def test_trial_0_begins_whatever_the_budget_is(tmp_path: Path) -> None:
    play = Play(tmp_path, hours=0.01)
    assert play.tracker.next_trial_limit() is None
    play.begin(0)
    assert play.tracker.next_trial_limit() == play.tracker.exceeded_limit() == "hours"


@pytest.mark.parametrize(
    ("unit", "limit", "an_hour"), [("hours", 60, 1), ("gpu_hours", 90, 1.5), ("cpu_hours", 350, 6)]
)
@pytest.mark.parametrize("seed", range(3))
def test_the_search_spends_all_but_what_the_later_stages_need(
    tmp_path: Path, unit: str, limit: float, an_hour: float, seed: int
) -> None:
    play = Play(tmp_path, at_once=3, gpus=0.5, confirm={"candidates": 3, "repeats": 3}, **{unit: limit})
    rng, lengths = random.Random(seed), dict[int, int]()

    def running() -> list[int]:
        return [trial.number for trial in play.state.trials if trial.state == "running"]

    while True:
        while len(running()) < 3 and play.tracker.next_trial_limit() is None:
            number = len(lengths)
            lengths[number] = rng.choice([1, 1, 2, EPOCHS]) if lengths else EPOCHS
            play.begin(number)
        if not running():
            break
        play.now += 1
        for number in running():
            play.report(number, epoch := play.state.trials[number].epoch + 1, rng.random())
            if epoch == lengths[number]:
                play.end(number, "finished" if epoch == EPOCHS else "stopped")
        if play.tracker.exceeded_limit():
            for number in set(running()) - {0}:
                play.end(number, "stopped")
    total = getattr(play.tracker.reserve() + play.tracker.ledger.total(), unit)
    assert len(lengths) > 10 and play.tracker.next_trial_limit() == unit
    # What is left is less than a trial; what is too much was spent in the hour between two reports.
    assert limit - EPOCHS * an_hour < total <= limit + an_hour


Ends = list[tuple[int, str, float]]


@pytest.mark.parametrize(
    ("ends", "closed"),
    [
        ([(0, "finished", 0.5), (1, "stopped", 0.9)], False),
        ([(0, "finished", 0.5), (1, "stopped", 0.9), (2, "failed", 0.9)], True),
        ([(0, "finished", 0.5), (1, "finished", 0.5), (2, "finished", 0.4)], True),
        ([(0, "finished", 0.5), (2, "finished", 0.4), (1, "finished", 0.6)], False),
        ([(1, "finished", 0.7), (0, "finished", 0.5), (2, "finished", 0.6)], True),
        ([(1, "stopped", 0.7), (2, "stopped", 0.7), (3, "failed", 0.7)], False),  # Trial 0 is still at work.
        ([(1, "stopped", 0.7), (2, "stopped", 0.7), (0, "finished", 0.1)], False),
        ([(1, "stopped", 0.7), (0, "failed", 0.7)], True),
    ],
)
def test_patience_counts_the_trials_after_the_last_improvement(tmp_path: Path, ends: Ends, closed: bool) -> None:
    play = Play(tmp_path, patience=2)
    for number in range(4):
        play.begin(number)
    for number, state, value in ends:
        play.now += 1
        play.end(number, state, value)
    assert play.tracker.next_trial_limit() == ("patience" if closed else None)
    assert play.tracker.exceeded_limit() is None


def test_patience_begins_again_in_another_space(tmp_path: Path) -> None:
    play = Play(tmp_path, patience=2)
    play.begin(0)
    play.end(0, value=0.5)
    for number in range(1, 5):
        play.now += 1
        play.begin(number)
        play.end(number, "stopped")
        if number == 2:
            assert play.tracker.next_trial_limit() == "patience"
            play.now += 1
            play.emit(SpaceChanged(space={}, weights={}, pretrained={}))
        assert play.tracker.next_trial_limit() == ("patience" if number == 4 else None)


def test_gpu_hours_without_gpu_are_refused(tmp_path: Path) -> None:
    sweep: SweepConfig = make_sweep(tmp_path, budget={"trials": 2, "gpu_hours": 1.5})
    require_gpus_for_gpu_hours(sweep, StageResources(ResourceRequest(1, 0.5), 2))
    with pytest.raises(InputError, match=r"budget.gpu_hours = 1.5, but runs hold no GPU here.*set budget.cpu_hours"):
        require_gpus_for_gpu_hours(sweep, StageResources(ResourceRequest(1, 0), 2))
