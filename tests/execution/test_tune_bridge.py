"""How Tune's calls reach a source, without a cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.load import build_experiment
from reid_tune.errors import InfrastructureError
from reid_tune.execution.failures import Failure
from reid_tune.execution.run_source import Attempt
from reid_tune.execution.tune_bridge import TuneBridge
from reid_tune.execution.worker_reports import pack_start

EXPERIMENT = build_experiment({}, {}, "spec")
FINISHED = "FINISHED"


class Runs:
    """A source of two runs that follows its attributes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ready = ["a", "b"]
        self.ended: list[str] = []
        self.losses: list[tuple[str, Failure]] = []
        self.started: list[str] = []
        self.stopped: set[str] = set()
        self.polls = 0

    def next_attempt(self) -> Attempt | None:
        return Attempt(self.ready.pop(0), EXPERIMENT, self.folder, None) if self.ready else None

    def is_done(self) -> bool:
        return len(self.ended) == 2

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        if metrics["epoch"] == 13:
            raise InfrastructureError("the disk is full.")
        if metrics["epoch"] == 2:
            self.ended.append(run)
        return metrics["epoch"] < 2

    def report_started(self, run: str) -> None:
        self.started.append(run)

    def report_lost(self, run: str, failure: Failure) -> None:
        self.losses.append((run, failure))

    def poll(self) -> None:
        self.polls += 1

    def is_running(self, run: str) -> bool:
        return run not in self.stopped


@pytest.fixture
def source(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def make_bridge(source: Runs, max_concurrent: int = 2, timeout: float = 1e9) -> TuneBridge:
    return TuneBridge(source, lambda: max_concurrent, lambda attempt: {"run": attempt.run}, timeout)


def report(epoch: int) -> dict[str, str]:
    return {"payload": f'{{"epoch": {epoch}}}'}


def test_no_more_runs_than_fit_are_started(source: Runs) -> None:
    bridge = make_bridge(source, max_concurrent=1)
    assert bridge.suggest("1") == {"run": "a"} and bridge.suggest("2") is None
    assert bridge.report("1", report(1)) and not bridge.report("1", report(2))
    bridge.complete("1", None)
    assert bridge.suggest("2") == {"run": "b"}
    assert not source.losses, "a run that the source has ended is not lost"
    bridge.report("2", report(2))
    assert bridge.suggest("3") == FINISHED


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "the run ended before its last epoch"),
        ("ray.exceptions.ActorDiedError: x", "the worker process died"),
        ("ray.exceptions.OutOfMemoryError: 2 workers", "ran out of memory"),
    ],
)
def test_a_process_that_ends_by_itself_is_lost(source: Runs, error: str | None, reason: str) -> None:
    bridge = make_bridge(source)
    bridge.suggest("1")
    bridge.complete("1", error)
    ((run, failure),) = source.losses
    assert run == "a" and failure.kind == "lost_worker" and reason in failure.reason


def test_what_is_silent_for_too_long_is_given_up_once(source: Runs) -> None:
    bridge = make_bridge(source, timeout=60)
    bridge.suggest("1"), bridge.suggest("2")
    assert bridge.trials_to_stop() == [] and source.polls == 1
    bridge.last_activity["2"] -= 61
    assert bridge.trials_to_stop() == ["2"]
    assert source.losses == [("b", Failure("timeout", "no report for 1 minutes"))]
    bridge.last_activity["2"] -= 61
    assert bridge.trials_to_stop() == ["2"] and len(source.losses) == 1
    assert not bridge.report("2", report(1)), "a late report changes nothing"
    bridge.complete("2", None)
    assert len(source.losses) == 1 and bridge.trials_to_stop() == []


def test_a_report_restarts_the_clock(source: Runs) -> None:
    bridge = make_bridge(source, timeout=60)
    bridge.suggest("1")
    bridge.last_activity["1"] -= 61
    bridge.report("1", report(1))
    assert bridge.trials_to_stop() == [] and not source.losses


def test_the_start_of_a_worker_reaches_the_source(source: Runs) -> None:
    bridge = make_bridge(source, timeout=60)
    bridge.suggest("1"), bridge.suggest("2")
    bridge.last_activity["1"] -= 61
    assert bridge.report("1", pack_start()) and source.started == ["a"] and bridge.trials_to_stop() == []
    source.stopped = {"b"}
    assert not bridge.report("2", pack_start()) and source.started == ["a"]


def test_runs_that_the_source_has_ended_are_stopped(source: Runs) -> None:
    bridge = make_bridge(source)
    bridge.suggest("1"), bridge.suggest("2")
    source.stopped = {"a"}
    assert bridge.trials_to_stop() == ["1"] and not source.losses


def test_a_fault_of_the_source_ends_all_runs_and_is_kept(source: Runs) -> None:
    bridge = make_bridge(source)
    bridge.suggest("1"), bridge.suggest("2")
    assert not bridge.report("1", report(13))
    assert isinstance(bridge.error, InfrastructureError)
    assert sorted(bridge.trials_to_stop()) == ["1", "2"] and source.polls == 0
    bridge.complete("1", None), bridge.complete("2", "killed")
    assert not source.losses and bridge.suggest("3") == FINISHED
