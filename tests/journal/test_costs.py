from collections import defaultdict
from dataclasses import replace
from statistics import mean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.journal.costs import Cost, CostLedger, EpochTiming, TimingEstimator
from reid_tune.journal.events import (
    ArtifactWritten,
    AttemptStarted,
    DriverStarted,
    EpochReported,
    Event,
    RunEnded,
    RunPaused,
    RunRetried,
    StageDone,
    StageStarted,
    WorkerStarted,
)
from reid_tune.journal.progress import sweep_progress
from reid_tune.journal.state import trial_run

from ..helpers.events import attempt_started, driver_started

Log = list[Event]
HOUR = 3600
RUNS = ("trials/0000", "trials/0001", "refit/winner")


def driver(time: float) -> Event:
    return driver_started(time=time)


def stage(time: float, name: str, done: bool) -> Event:
    return StageDone(time=time, stage=name, result={}) if done else StageStarted(time=time, stage=name)


def attempt(time: float, run: str, cpus: int = 0, gpus: float = 0) -> Event:
    return attempt_started(time=time, run=run, cpus=cpus, gpus=gpus)


def worker(time: float, run: str) -> Event:
    return WorkerStarted(time=time, run=run)


def report(time: float, run: str, epoch: int = 1) -> Event:
    return EpochReported(time=time, run=run, epoch=epoch, metrics={})


def retry(time: float, run: str) -> Event:
    return RunRetried(time=time, run=run, failure="lost_worker", reason="")


def ended(time: float, run: str) -> Event:
    return RunEnded(time=time, run=run, state="stopped", epoch=1)


def artifact(time: float, run: str) -> Event:
    return ArtifactWritten(time=time, run=run, path="", folder="")


AFTER = st.integers(0, 4)  # whole seconds after the event before
EVENT = st.one_of(
    st.builds(driver, AFTER),
    st.builds(stage, AFTER, st.sampled_from(["search", "confirm", "refit"]), st.booleans()),
    st.builds(attempt, AFTER, st.sampled_from(RUNS), st.integers(0, 4), st.sampled_from([0, 0.25])),
    *(st.builds(of_run, AFTER, st.sampled_from(RUNS)) for of_run in (worker, report, retry, ended, artifact)),
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
    """Seconds of work, GPU, CPU and waiting by stage, by looking at every second on its own."""
    costs: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
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
                if last_of(before[last:], WorkerStarted, EpochReported, run=run) is None:
                    costs[its_stage][3] += 1
                    continue
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
            seconds = [HOUR * cost.hours, HOUR * cost.gpu_hours, HOUR * cost.cpu_hours, HOUR * cost.waiting_hours]
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
            worker(hour, run),
            report(3 * hour, run),
            driver(100 * hour),
            stage(100 * hour, "search", done=False),
            attempt(101 * hour, run, 4),
            worker(101 * hour, run),
        ]
    )
    assert ledger.total() == Cost(hours=4, gpu_hours=1, cpu_hours=4)
    assert ledger.by_stage(now=103 * hour) == {"search": Cost(hours=6, gpu_hours=1, cpu_hours=12)}


def test_hours_of_runs_are_never_negative() -> None:
    """The clock is set back by two hours while the run trains."""
    run = trial_run(0)
    log = [driver(0), attempt(5 * HOUR, run), worker(5 * HOUR, run), report(6 * HOUR, run), report(4 * HOUR, run, 2)]
    assert CostLedger([*log, ended(5 * HOUR, run)]).run_hours == {run: 2}
    assert CostLedger([*log, driver(9 * HOUR), attempt(9 * HOUR, run)]).run_hours == {run: 1}


@given(events=logs())
def test_hours_of_runs_are_the_cpu_hours_of_runs_with_one_cpu(events: Log) -> None:
    log = [replace(event, cpus=1) if isinstance(event, AttemptStarted) else event for event in events]
    ledger = CostLedger(log)
    assert sum(ledger.run_hours.values()) == pytest.approx(ledger.total().cpu_hours, abs=1e-9)


def test_waiting_for_resources_is_not_billed_and_does_not_slow_a_start() -> None:
    run = trial_run(0)
    log = [driver(0), stage(0, "search", done=False), attempt(0, run, 2, 1)]
    ledger, timing = CostLedger(log), TimingEstimator()
    assert ledger.by_stage(4 * HOUR) == {"search": Cost(hours=4, waiting_hours=4)}
    log += [worker(4 * HOUR, run), report(4 * HOUR + 30, run, 1), report(4 * HOUR + 40, run, 2)]
    for event in log:
        timing.apply(event)
    cost = CostLedger(log).total(6 * HOUR)
    assert (cost.gpu_hours, cost.cpu_hours, cost.waiting_hours) == pytest.approx((2, 4, 4))
    assert timing.timing == EpochTiming(20, 10)


def test_a_paused_run_costs_nothing_until_it_continues() -> None:
    run = trial_run(0)
    log = [driver(0), stage(0, "search", done=False), attempt(0, run, 2, 1), worker(0, run)]
    log += [replace(RunPaused(run=run, epoch=1, reason=""), time=2 * HOUR), attempt(5 * HOUR, run, 2, 1)]
    assert CostLedger(log).total(5 * HOUR).cpu_hours == 4
    assert CostLedger([*log, worker(6 * HOUR, run)]).total(7 * HOUR).cpu_hours == 6


def test_the_timing_leaves_out_the_time_between_attempts() -> None:
    log = [
        *(attempt(0, RUNS[0]), worker(0, RUNS[0]), report(14, RUNS[0], 1), report(18, RUNS[0], 2)),
        *(report(24, RUNS[0], 3), retry(30, RUNS[0])),
        *(attempt(50, RUNS[0]), worker(100, RUNS[0]), report(112, RUNS[0], 4), ended(113, RUNS[0])),
        *(attempt(100, RUNS[1]), worker(100, RUNS[1]), report(116, RUNS[1], 1), report(128, RUNS[1], 2)),
        *(driver(900), report(901, RUNS[1], 3)),
        *(attempt(0, RUNS[2]), worker(0, RUNS[2]), report(70, RUNS[2], 1), report(470, RUNS[2], 2)),
    ]
    watch = TimingEstimator()
    assert watch.timing is None
    for event in log:
        watch.apply(event)
    epoch = median([mean([4, 6]), 12])
    assert watch.timing == EpochTiming(mean([14, 12, 16]) - epoch, epoch)
    assert watch.timing.seconds(10) == watch.timing.start + 10 * epoch
