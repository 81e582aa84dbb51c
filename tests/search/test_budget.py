import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.errors import InputError
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.costs import Cost, CostLedger, EpochTiming, TimingEstimator
from reid_tune.journal.events import (
    ArtifactWritten,
    AttemptStarted,
    DriverStarted,
    EndState,
    EpochReported,
    Event,
    RunEnded,
    RunRetried,
    RunSuggested,
    StageDone,
    StageStarted,
)
from reid_tune.journal.progress import sweep_progress
from reid_tune.journal.state import SweepState, trial_run
from reid_tune.search.budget import BudgetTracker, estimate_later_stages, require_gpus_for_gpu_hours
from reid_tune.search_space.load import SweepConfig

from ..helpers.events import attempt_started, driver_started, sweep_header
from ..helpers.simulated_driver import EPOCHS, make_sweep

Log = list[Event]
HOUR = 3600
RUNS = ("trials/0000", "trials/0001", "refit/winner")
PACE = EpochTiming(start=HOUR / 2, epoch=HOUR)  # a trial of 6 epochs takes 6.5 hours


def driver(time: float) -> Event:
    return driver_started(time=time)


def stage(time: float, name: str, done: bool) -> Event:
    return StageDone(time=time, stage=name, result={}) if done else StageStarted(time=time, stage=name)


def attempt(time: float, run: str, cpus: int = 0, gpus: float = 0) -> Event:
    return attempt_started(time=time, run=run, cpus=cpus, gpus=gpus)


def report(time: float, run: str, epoch: int = 1) -> Event:
    return EpochReported(time=time, run=run, epoch=epoch, metrics={})


def retry(time: float, run: str) -> Event:
    return RunRetried(time=time, run=run, failure="lost_worker", reason="")


def ended(time: float, run: str) -> Event:
    return RunEnded(time=time, run=run, state="stopped", epoch=1)


def artifact(time: float, run: str) -> Event:
    return ArtifactWritten(time=time, run=run, path="", folder="")


# Events ---------------------------------------------------------------------------------------------------------------

AFTER = st.integers(0, 4)  # whole seconds after the event before
EVENT = st.one_of(
    st.builds(driver, AFTER),
    st.builds(stage, AFTER, st.sampled_from(["search", "confirm", "refit"]), st.booleans()),
    st.builds(attempt, AFTER, st.sampled_from(RUNS), st.integers(0, 4), st.sampled_from([0, 0.25])),
    *(st.builds(of_run, AFTER, st.sampled_from(RUNS)) for of_run in (report, retry, ended, artifact)),
)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    events, now = draw(st.lists(EVENT, max_size=25)), 1000.0
    log: Log = []
    for event in events:
        now += event.time
        log.append(replace(event, time=now))
    return log


def last_of(events: Log, *kinds: type[Event], run: str = "") -> int | None:
    """The index of the last event of some kinds, if of a run of this run."""
    matches = [i for i, event in enumerate(events) if isinstance(event, kinds) and getattr(event, "run", run) == run]
    return matches[-1] if matches else None


def working(events: Log) -> str | None:
    """The stage at work after some events."""
    last = last_of(events, DriverStarted, StageStarted, StageDone)
    event = events[last] if last is not None else None
    return event.stage if isinstance(event, StageStarted) else None


def second_by_second(events: Log, now: int) -> dict[str, list[float]]:
    """Seconds of work, GPU and CPU by stage, by looking at every second on its own."""
    costs: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for second in range(1000, now):
        before = [event for event in events if event.time <= second]
        after = events[len(before) :]
        if not before or (after and isinstance(after[0], DriverStarted)):
            continue
        if (at := working(before)) is not None:
            costs[at][0] += 1
        for run in RUNS:
            last = last_of(before, DriverStarted, AttemptStarted, RunRetried, RunEnded, run=run)
            if last is not None and isinstance(event := before[last], AttemptStarted):
                its_stage = working(before[:last]) or ""
                costs[its_stage][1] += event.gpus
                costs[its_stage][2] += event.cpus
    return costs


@given(events=logs(), more=st.integers(0, 5))
def test_a_ledger_agrees_with_looking_at_every_second(events: Log, more: int) -> None:
    ledger, last = CostLedger(events), int(events[-1].time) if events else 1000
    for now, found in ((last, ledger.by_stage()), (last + more, ledger.by_stage(last + more))):
        expected = second_by_second(events, now)
        for name in found | expected:
            cost = found.get(name, Cost())
            seconds = [HOUR * cost.hours, HOUR * cost.gpu_hours, HOUR * cost.cpu_hours]
            assert seconds == pytest.approx(expected[name], abs=1e-6)
        assert HOUR * ledger.total(now).cpu_hours == pytest.approx(sum(cost[2] for cost in expected.values()), abs=1e-6)


@given(events=logs())
def test_hours_are_those_that_reports_show(events: Log) -> None:
    shown = {item.name: item.seconds for item in sweep_progress(events).stages}
    found = {name: HOUR * cost.hours for name, cost in CostLedger(events).by_stage().items() if name}
    assert found == pytest.approx({name: shown[name] for name in found}, abs=1e-6)
    assert sum(found.values()) == pytest.approx(sum(shown.values()), abs=1e-6)


def test_nothing_counts_while_no_driver_works() -> None:
    run, hour = trial_run(0), HOUR
    ledger = CostLedger(
        [
            driver(0),
            stage(0, "search", done=False),
            attempt(hour, run, 2, 0.5),
            report(3 * hour, run),
            driver(100 * hour),
            stage(100 * hour, "search", done=False),
            attempt(101 * hour, run, 4),
        ]
    )
    assert ledger.total() == Cost(hours=4, gpu_hours=1, cpu_hours=4)
    assert ledger.by_stage(now=103 * hour) == {"search": Cost(hours=6, gpu_hours=1, cpu_hours=12)}


# Pace -----------------------------------------------------------------------------------------------------------------


def test_the_timing_leaves_out_the_time_between_attempts() -> None:
    log = [
        *(attempt(0, RUNS[0]), report(14, RUNS[0], 1), report(18, RUNS[0], 2)),
        *(report(24, RUNS[0], 3), retry(30, RUNS[0])),
        *(attempt(100, RUNS[0]), report(112, RUNS[0], 4), ended(113, RUNS[0])),
        *(attempt(100, RUNS[1]), report(116, RUNS[1], 1), report(128, RUNS[1], 2)),
        *(driver(900), report(901, RUNS[1], 3)),
        *(attempt(0, RUNS[2]), report(70, RUNS[2], 1), report(470, RUNS[2], 2)),
    ]
    watch = TimingEstimator()
    assert watch.timing is None
    for event in log:
        watch.apply(event)
    epoch = median([mean([4, 6]), 12])
    assert watch.timing == EpochTiming(mean([14, 12, 16]) - epoch, epoch)
    assert watch.timing.seconds(10) == watch.timing.start + 10 * epoch


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(1, 4))
def test_runs_begin_as_soon_as_there_is_room(seconds: list[int], at_once: int) -> None:
    now, waiting, at_work = 0, list(seconds), list[int]()
    while waiting or at_work:
        at_work = [left for left in at_work if left > 0]
        while waiting and len(at_work) < at_once:
            if (first := waiting.pop(0)) > 0:
                at_work.append(first)
        if at_work:
            now, at_work = now + 1, [left - 1 for left in at_work]
    cost = StageResources(ResourceRequest(3, 0.5), at_once).cost(seconds)
    assert (HOUR * cost.hours, HOUR * cost.cpu_hours) == pytest.approx((now, 3 * sum(seconds)))
    assert HOUR * cost.gpu_hours == pytest.approx(sum(seconds) / 2)


# The budget -----------------------------------------------------------------------------------------------------------


def test_what_the_later_stages_need(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"confirm": {"top": 2, "seeds": 5}, "refit": {"seeds": 2}}
    sweep = make_sweep(tmp_path, **sections, resources={"workers": 1, "refit_workers": 2})
    later = estimate_later_stages(
        sweep, PACE, EPOCHS, StageResources(ResourceRequest(2, 1), 4), StageResources(ResourceRequest(4, 2), 3)
    )
    assert (later["confirm"].runs, later["confirm"].epochs) == (15, 90)
    assert later["confirm"].cost == Cost(hours=4 * 6.5, gpu_hours=15 * 6.5, cpu_hours=15 * 13)
    refit = 0.5 + 6 / 0.8 / 2  # with the fifth that was held out, on two workers
    assert (later["refit"].runs, later["refit"].epochs) == (4, 24)
    assert later["refit"].cost == Cost(hours=2 * refit, gpu_hours=4 * 2 * refit, cpu_hours=4 * 4 * refit)


def test_one_trial_is_confirmed_and_refitted_alone(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"trials": 1}, confirm={"seeds": 2})
    later = estimate_later_stages(
        sweep, PACE, EPOCHS, StageResources(ResourceRequest(), 1), StageResources(ResourceRequest(), 1)
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
        confirm: Mapping[str, int] = {"top": 1, "seeds": 1},
        **budget: Any,
    ) -> None:
        sweep = make_sweep(folder, budget={"trials": 100, **budget}, confirm=dict(confirm))
        self.now = 0.0
        self.state = SweepState()
        self.holds = ResourceRequest(2, gpus)
        trials, refits = StageResources(self.holds, at_once), StageResources(self.holds, 1)
        self.tracker = BudgetTracker(sweep, trials, refits, PACE, lambda: HOUR * self.now)
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
    play = Play(tmp_path, at_once=3, gpus=0.5, confirm={"top": 3, "seeds": 3}, **{unit: limit})
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
    later = estimate_later_stages(
        play.tracker.sweep, play.tracker.timing, EPOCHS, play.tracker.trials, play.tracker.refits
    )
    total = getattr(sum((stage.cost for stage in later.values()), play.tracker.ledger.total()), unit)
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


def test_gpu_hours_without_gpu_are_refused(tmp_path: Path) -> None:
    sweep: SweepConfig = make_sweep(tmp_path, budget={"trials": 2, "gpu_hours": 1.5})
    require_gpus_for_gpu_hours(sweep, StageResources(ResourceRequest(1, 0.5), 2))
    with pytest.raises(InputError, match=r"budget.gpu_hours = 1.5, but runs hold no GPU here.*set budget.cpu_hours"):
        require_gpus_for_gpu_hours(sweep, StageResources(ResourceRequest(1, 0), 2))
