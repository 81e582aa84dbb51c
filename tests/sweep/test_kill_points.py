"""A driver that is killed between any two events of a sweep, from its first to its last, and a sweep that continues."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import ArtifactWritten, ChampionRead, DriverEnded, DriverStarted, Event, StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.stages import STAGES
from reid_tune.journal.state import replay
from reid_tune.report.html import PAGE
from reid_tune.search_space.load import SweepConfig
from reid_tune.storage.temporary_folder import temporary_folder
from reid_tune.sweep import ending, resume
from reid_tune.sweep import run as module
from reid_tune.sweep.driver import SweepDriver
from reid_tune.sweep.mlflow_sync import sync
from reid_tune.sweep.run import run_sweep
from reid_tune.tracking import sender
from reid_tune.tracking.store import client

from ..helpers.finished_sweep import CHECKED, ENVIRONMENT, plan_of, stage_result
from ..helpers.simulated_driver import make_sweep, outcome

pytestmark = pytest.mark.usefixtures("no_fsync", "without_ray")
TRIALS = 4
CHAMPION = ChampionRead(version=7, parameters={"train.optim.base_lr": 0.005})


class SimulatedDriver(SweepDriver):
    """A driver whose stages run in this process, without Ray and data."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.stages = {stage: self._stage(stage) for stage in STAGES}

    def _stage(self, name: str) -> Callable[[], dict[str, Any]]:
        return lambda: stage_result(self.sweep, self.journal, name)


class NoSender:
    """A store that has everything at once."""

    last_error = None
    lag_message = ""

    def __init__(self, *_: object) -> None: ...

    def close(self, *_: object) -> bool:
        return True


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what needs Ray or images, and the page; the driver, the resume and the end of a sweep are real."""
    replacements: dict[str, Callable[..., Any]] = {
        "SweepDriver": SimulatedDriver,
        "run_preflight": lambda *_: CHECKED,
        "connection_error": lambda _: None,
        "ray_session": lambda *_: nullcontext(),
        "check_nodes": lambda _: None,
        "read_champion": lambda *_: CHAMPION,
        "read_champion_again": lambda *_: CHAMPION,
        "plan_from_probe": lambda sweep, *_: plan_of(sweep),
        "pinned_pretrained_weights": lambda sweep, _: nullcontext(sweep),
    }
    for name, replacement in replacements.items():
        monkeypatch.setattr(module, name, replacement)
    monkeypatch.setattr(resume, "collect_environment", lambda _: ENVIRONMENT)
    # Its charts take most of the time of a simulated sweep.
    monkeypatch.setattr(ending, "write_page", lambda folder: (folder / PAGE).write_text(""))


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "Sender", NoSender)
    monkeypatch.setattr(ending.Cursor, "lag", lambda _: 0)


def make(folder: Path, **values: Any) -> SweepConfig:
    return make_sweep(folder, **({"budget": {"trials": TRIALS}, "confirm": {"candidates": 2, "repeats": 2}} | values))


def run(sweep: SweepConfig) -> list[Event]:
    """Begin or continue a sweep, which must end in order; its log."""
    run_sweep(sweep, resume="auto", until=STAGES[-1])
    events = read_events(sweep.folder / EVENTS)
    assert isinstance(events[-1], DriverEnded) and events[-1].status == "FINISHED"
    assert isinstance(events[-2], ArtifactWritten) and events[-2].path == PAGE
    assert (sweep.folder / PAGE).is_file()
    return events


def conclusion(sweep: SweepConfig) -> tuple[Any, ...]:
    """What a sweep has computed."""
    journal = Journal(sweep.folder)
    journal._log.close()
    return outcome(journal), journal.state.stages


def kill_points(events: list[Event], *, every: bool) -> Iterator[int]:
    """Numbers of events after which a driver is killed: all, or one between any two kinds of events."""
    kinds = [event.kind + getattr(event, "stage", "") + (getattr(event, "run", "") or "")[:1] for event in events]
    pairs = set[tuple[str, str]]()
    for number, pair in enumerate(pairwise(kinds), 1):
        if every or pair not in pairs:
            yield number
        pairs.add(pair)


@pytest.mark.usefixtures("no_store")
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.integration)])
def test_a_sweep_killed_after_any_event_ends_as_an_undisturbed_one(tmp_path: Path, every: bool) -> None:
    sweep = make(tmp_path)
    events = run(sweep)
    expected, lines = conclusion(sweep), (sweep.folder / EVENTS).read_bytes().splitlines(keepends=True)
    points = list(kill_points(events, every=every))
    assert len(points) > 25 and points[-1] == len(events) - 1
    whole = sweep.folder.rename(tmp_path / "whole")
    for count in points:
        shutil.copytree(whole, sweep.folder)
        (sweep.folder / PAGE).unlink()
        (sweep.folder / EVENTS).write_bytes(b"".join(lines[:count]))
        assert run(sweep)[:count] == events[:count] and conclusion(sweep) == expected, f"killed after event {count}"
        shutil.rmtree(sweep.folder)


@pytest.mark.usefixtures("no_store")
@pytest.mark.parametrize("mode", ["stop", "promote"])
def test_a_larger_budget_continues_paused_trials_wherever_its_driver_is_killed(tmp_path: Path, mode: str) -> None:
    values: dict[str, Any] = {"scheduler": {"mode": mode, "reduction_factor": 2}}
    large = {"trials": TRIALS, "gpu_hours": 20}  # `EpochBudget` counts epochs
    sweep = make(tmp_path / "large", budget=large, **values)
    run(sweep)
    expected = [trial for trial in conclusion(sweep)[0] if trial[0].startswith("trials/")]
    sweep = make(tmp_path, budget={"trials": TRIALS, "gpu_hours": 7}, **values)
    before = run(sweep)
    assert [trial.limit for trial in replay(before).trials] == ["", "gpu_hours"]
    sweep = make(tmp_path, budget=large, **values)
    events = run(sweep)
    assert [trial for trial in conclusion(sweep)[0] if trial[0].startswith("trials/")] == expected
    done, lines = conclusion(sweep), (sweep.folder / EVENTS).read_bytes().splitlines(keepends=True)
    for count in [count for count in kill_points(events, every=False) if count >= len(before)] or [0]:
        cut(sweep, count)
        assert run(sweep)[:count] == events[:count] and conclusion(sweep) == done, f"killed after event {count}"
        (sweep.folder / EVENTS).write_bytes(b"".join(lines))


def cut(sweep: SweepConfig, count: int) -> None:
    """Leave a finished sweep as a driver that was killed after an event."""
    log = sweep.folder / EVENTS
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:count]))
    (sweep.folder / PAGE).unlink()


def after_register(events: list[Event]) -> int:
    """The number of events up to the end of the last stage."""
    return 1 + max(number for number, event in enumerate(events) if isinstance(event, StageDone))


def statuses(uri: str, sweep: SweepConfig) -> dict[str, str]:
    connection = client(uri)
    experiment = connection.get_experiment_by_name(sweep.file.name)
    return {run.info.run_name: run.info.status for run in connection.search_runs([experiment.experiment_id])}


@pytest.mark.parametrize("more", [0, 1, 2])
def test_the_end_of_a_sweep_is_completed_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: int
) -> None:
    """Killed after the stage register, after the page, and before the last events were sent."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    sweep = make(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(sender, "Sender", NoSender)
        events = run(sweep)
    cut(sweep, count := after_register(events) + more)
    if more < 2:
        (sent,) = sync(sweep.file.name, str(sweep.folder.parent), None, print)
        assert sent.sent.events == count
        assert statuses(uri, sweep)[sweep.file.name] == "FINISHED", "it has done all its stages"
        again = run(sweep)
        assert len([event for event in again if isinstance(event, DriverStarted)]) == 2
    else:
        run_sweep(sweep, resume="auto", until=STAGES[-1])
        assert read_events(sweep.folder / EVENTS) == events, "only the store lacked something"
    assert set(statuses(uri, sweep).values()) == {"FINISHED"}
    before = (sweep.folder / EVENTS).read_bytes()
    state = run_sweep(sweep, resume="auto", until=STAGES[-1])
    assert (sweep.folder / EVENTS).read_bytes() == before and state == replay(read_events(sweep.folder / EVENTS))
    assert "warning: few & far" not in capsys.readouterr().err.splitlines()[2:]


@pytest.mark.usefixtures("no_store")
def test_the_folder_of_a_driver_that_was_killed_at_the_end_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    sweep = make(tmp_path)
    cut(sweep, after_register(run(sweep)))
    with temporary_folder() as folder:
        shutil.copytree(folder, temporary / "reid-tune.killed")
    run(sweep)
    assert not list(temporary.iterdir())


def test_a_store_that_is_unreachable_at_the_end_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(sender, "_STALL_SECONDS", 0.1)
    sweep = make(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(sender, "Sender", NoSender)
        events = run(sweep)
    cut(sweep, after_register(events))
    run(sweep)
    assert "events are not in MLflow" in capsys.readouterr().err
    run_sweep(sweep, resume="auto", until=STAGES[-1])
    assert "send them with reid-tune sync simulated" in capsys.readouterr().err


def test_stages_that_were_opened_again_are_not_finished_for_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    sweep = make(tmp_path)
    with monkeypatch.context() as context:
        context.setattr(sender, "Sender", NoSender)
        first = run(sweep)
        run_sweep(sweep, resume="auto", until=STAGES[-1], start="test")
    cut(sweep, len(first) + 3)  # the driver, `reopened`, and the start of the stage test
    sync(sweep.file.name, str(sweep.folder.parent), None, print)
    assert statuses(uri, sweep)[sweep.file.name] == "KILLED"
