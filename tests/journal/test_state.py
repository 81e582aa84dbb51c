from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import (
    ArtifactWritten,
    CandidateSelected,
    EpochReported,
    Event,
    RunEnded,
    RunPaused,
    RunRetried,
    RunSuggested,
    StageDone,
    StagesReopened,
    StageStarted,
)
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import SweepState, replay, trial_run

from ..helpers.events import attempt_started, driver_started, sweep_header

RUNS = st.sampled_from(["trials/0000", "trials/0001", "trials/0002", "refit/winner"])
VALUES = st.floats(0, 1) | st.none() | st.tuples(st.integers(), st.integers())
PARAMETERS = st.dictionaries(st.sampled_from(["lr", "steps"]), VALUES)
STAGE = st.sampled_from(["search", "confirm", "refit"])
EVENT = st.one_of(
    st.builds(RunSuggested, run=RUNS, parameters=PARAMETERS, request=st.sampled_from([None, "request"])),
    st.builds(attempt_started, run=RUNS, attempt=st.integers(1, 3)),
    st.builds(RunRetried, run=RUNS, failure=st.just("lost_worker"), reason=st.text()),
    st.builds(EpochReported, run=RUNS, epoch=st.integers(1, 9), metrics=PARAMETERS),
    st.builds(RunEnded, run=RUNS, state=st.sampled_from(["finished", "stopped", "failed"]), epoch=st.just(3)),
    st.builds(RunPaused, run=RUNS, epoch=st.just(2), reason=st.text(), limit=st.sampled_from(["", "hours"])),
    st.builds(StageStarted, stage=STAGE),
    st.builds(StageDone, stage=STAGE, result=st.dictionaries(st.just("rungs"), VALUES)),
    st.builds(CandidateSelected, trial=st.none() | st.integers(0, 2), rounds=st.just(1)),
    st.builds(StagesReopened, stages=st.lists(STAGE), runs=st.lists(RUNS)),
    st.builds(driver_started, environment=PARAMETERS),
    st.builds(ArtifactWritten, run=RUNS, path=st.just("a.png"), folder=st.just("")),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Any order of events that names only runs which were suggested."""
    history: list[Event] = [sweep_header(spec={"a": (1, 2)})]
    suggested = set[str]()
    for event in draw(st.lists(EVENT, max_size=40)):
        if isinstance(event, RunSuggested):
            suggested.add(event.run)
        elif isinstance(event, StagesReopened):
            suggested.difference_update(event.runs)
        elif getattr(event, "run", None) not in (None, *suggested):
            continue
        history.append(event)
    return history


@settings(deadline=None, max_examples=30)
@given(history=histories())
def test_a_replay_is_the_live_state_after_every_event(
    tmp_path_factory: pytest.TempPathFactory, history: list[Event]
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        with Journal(folder) as journal:
            for event in history:
                journal.emit(event)
                assert replay(read_events(folder / EVENTS)) == journal.state
    with Journal(folder) as again:
        assert again.state == journal.state
        assert len(again.earlier_events) == len(history)


def test_a_state_by_hand() -> None:
    state = replay(
        [
            sweep_header(name="s"),
            driver_started(environment={"commit": "c0ffee"}),
            StageStarted(time=5.0, stage="search"),
            RunSuggested(run="trials/0000", parameters={}, origin="spec"),
            attempt_started(run="trials/0000", attempt=1),
            EpochReported(run="trials/0000", epoch=1, metrics={"mAP": 0.1}),
            RunRetried(run="trials/0000", failure="lost_worker", reason="why"),
            EpochReported(run="trials/0000", epoch=2, metrics={"loss": 1.0}),
            RunSuggested(run="trials/0001", parameters={"lr": 1}, request="asked"),
            RunEnded(time=7.0, run="trials/0000", state="failed", epoch=2, reason="why", failure="error"),
            RunSuggested(run="refit/winner", parameters={}),
            StageDone(stage="search", result={"finished": 0}),
            ArtifactWritten(path="page.html", folder=""),
        ]
    )
    first, second = state.trials
    assert (first.number, first.state, first.reason, first.epoch, first.attempts) == (0, "failed", "why", 2, 1)
    assert (first.origin, first.failure, first.retries, first.ended) == ("spec", "error", ["lost_worker"], 7.0)
    assert (first.last("mAP"), first.last("loss"), first.last("mINP")) == (0.1, 1.0, None)
    assert (second.state, second.epoch, second.parameters, second.last("mAP")) == ("running", 0, {"lr": 1}, None)
    assert state.stages == {"search": {"finished": 0}} and state.stage_starts == {"search": 5.0}
    assert (state.header.name, state.requests, state.environment) == ("s", {"asked"}, {"commit": "c0ffee"})


def test_stages_that_are_opened_again_lose_their_results_and_runs() -> None:
    state = replay(
        [
            StageDone(stage="search", result={}),
            StageDone(stage="refit", result={}),
            RunSuggested(run="trials/0000", parameters={}),
            RunSuggested(run="refit/winner", parameters={}),
            StagesReopened(stages=["refit", "export"], runs=["refit/winner"]),
        ]
    )
    assert list(state.stages) == ["search"] and list(state.runs) == ["trials/0000"]


def test_a_state_without_a_header_has_no_objective() -> None:
    with pytest.raises(LookupError, match="the sweep has not started"):
        _ = SweepState().metric


def test_full_length_trials_are_ordered_by_value_and_then_by_number() -> None:
    state = replay([sweep_header()])
    for number, (ended, value) in enumerate(
        [("finished", 0.2), ("stopped", 0.9), ("finished", 0.3), ("finished", 0.3), ("failed", 0.8), ("finished", None)]
    ):
        run = trial_run(number)
        state.apply(RunSuggested(run=run, parameters={}))
        state.apply(EpochReported(run=run, epoch=1, metrics={} if value is None else {"mAP": value}))
        state.apply(RunEnded(run=run, state=ended, epoch=1))  # type: ignore[arg-type]
    assert [trial.number for trial in state.finished()] == [2, 3, 0]


def test_a_torn_line_is_dropped_and_the_log_is_continued(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.emit(RunSuggested(run="trials/0000", parameters={}))
        journal.emit(EpochReported(run="trials/0000", epoch=1, metrics={"mAP": 0.5}))
    path = tmp_path / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with Journal(tmp_path) as journal:
        assert journal.state.runs["trials/0000"].epochs == {}
        journal.emit(EpochReported(run="trials/0000", epoch=1, metrics={"mAP": 0.25}))
    with Journal(tmp_path) as journal:
        assert journal.state.runs["trials/0000"].epochs == {1: {"mAP": 0.25}}
        assert len(journal.earlier_events) == 2


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(InputError, match="in use by another running process"):
        Journal(tmp_path)


def test_listeners_see_the_state_after_the_event(tmp_path: Path) -> None:
    seen: list[tuple[Event, list[str], int]] = []
    with Journal(tmp_path) as journal:
        journal.listeners.append(
            lambda event, state: seen.append((event, list(state.runs), journal.path.stat().st_size))
        )
        journal.emit(RunSuggested(run="trials/0000", parameters={}))
        ((event, runs, size),) = seen
        assert [event] == read_events(journal.path) and runs == ["trials/0000"] and size > 0
