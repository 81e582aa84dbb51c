"""Processes of a sweep that are killed or suspended by a signal, and drivers and sweeps that meet."""

import json
import signal
import subprocess
import time
from typing import Any

import pytest

from reid_tune.journal.events import AttemptStarted, EpochReported, RunRetried
from reid_tune.journal.lease import LEASE

from ..helpers.mlflow_servers import free_port, mlflow_server
from .conftest import MakeSweep
from .points import SHORT
from .sweeps import COMMAND, ChaosSweep, is_event
from .table import Tried

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

# For how long processes are suspended: heartbeats of a living driver, of 5 s each, and seconds without one.
HEARTBEATS, SILENCE = (2, 6) if SHORT else (12, 60)
WORKER = "ray::ImplicitFunc"
REPORT = "reid_tune.execution.worker:_RayReporter.report_epoch"
APPEND = "reid_tune.journal.event_log:EventLog.append"
Driver = subprocess.Popen[str]


def test_killed_and_suspended_processes_lose_nothing(make_sweep: MakeSweep, calm: dict[str, Any], tried: Tried) -> None:
    kinds = [f"suspended: {name}" for name in ("worker", "driver", "raylet")]
    kinds += [f"killed: {name}" for name in ("worker", "raylet", "GCS", "MLflow server")]
    sweep, port = make_sweep(), free_port()
    sweep.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    with tried(*kinds):
        with mlflow_server(sweep.folder, port=port) as server:
            driver_point = f"driver after {APPEND} ended-trials/0000 SIGSTOP"
            worker_points = [f"worker {moment} {REPORT} SIGSTOP" for moment in ("before", "after")]
            with sweep.start(points=[driver_point, *worker_points]) as driver:
                _suspend_worker(sweep, driver, worker_points[0])
                _kill_worker(sweep, driver, worker_points[1])
                _suspend_driver(sweep, driver, driver_point)
                sweep.wait_for("trial 1 starts", lambda: is_event(sweep, AttemptStarted, run="trials/0001"), driver)
                server.signal(signal.SIGKILL)
                if not _suspend_raylet(sweep, driver):
                    _kill_part_of_ray(sweep, driver, "raylet", "trials/0001")
        with mlflow_server(sweep.folder, port=port):
            with sweep.start() as driver:
                _kill_part_of_ray(sweep, driver, "gcs_server", "refit/winner")
            sweep.finish()
            sweep.require_as(calm)


def _suspend_worker(sweep: ChaosSweep, driver: Driver, point: str) -> None:
    sweep.wait_for("the worker is suspended", lambda: sweep.has_struck(point), driver)
    _wait_for_heartbeats(sweep, driver)
    (worker,) = sweep.processes(WORKER)
    worker.resume()
    sweep.wait_for("it reports", lambda: sweep.count(EpochReported), driver)
    assert not sweep.count(RunRetried)


def _kill_worker(sweep: ChaosSweep, driver: Driver, point: str) -> None:
    sweep.wait_for("the worker is suspended again", lambda: sweep.has_struck(point), driver)
    (worker,) = sweep.processes(WORKER)
    worker.kill()
    sweep.wait_for("it is started again", lambda: sweep.count(RunRetried), driver)


def _suspend_driver(sweep: ChaosSweep, driver: Driver, point: str) -> None:
    sweep.wait_for("the driver is suspended", lambda: sweep.has_struck(point), driver)
    lease = _lease(sweep)
    sweep.wait_for("its lease is silent", lambda: time.time() - lease.stat().st_mtime > SILENCE)
    driver.send_signal(signal.SIGCONT)


def _suspend_raylet(sweep: ChaosSweep, driver: Driver) -> bool:
    """Suspend the raylet; True if Ray has given it up, and the driver has ended in order."""
    (raylet,) = sweep.processes("raylet")
    raylet.suspend()
    if SHORT:
        _wait_for_heartbeats(sweep, driver)
    else:
        began = time.monotonic()
        sweep.wait_for("a minute is over", lambda: time.monotonic() - began > SILENCE)
    raylet.resume()
    sweep.wait_for(
        "the sweep continues or ends",
        lambda: driver.poll() is not None or is_event(sweep, EpochReported, run="trials/0001"),
    )
    if driver.poll() is None:
        return False
    _require_sentence(sweep, driver)
    return True


def _kill_part_of_ray(sweep: ChaosSweep, driver: Driver, program: str, run: str) -> None:
    """Kill a process of Ray while a run is starting: the driver ends with one sentence."""
    sweep.wait_for(f"{run} starts", lambda: is_event(sweep, AttemptStarted, run=run), driver)
    (victim,) = sweep.processes(program)
    victim.kill()
    _require_sentence(sweep, driver)


def _require_sentence(sweep: ChaosSweep, driver: Driver) -> None:
    assert sweep.wait_for_end(driver) == 3, sweep.stderr
    lines = [line for line in sweep.stderr.splitlines() if line.startswith("reid-tune: ")]
    assert len(lines) == 1 and "continue with" in lines[0] and "Traceback" not in sweep.stderr, sweep.stderr


def _wait_for_heartbeats(sweep: ChaosSweep, driver: Driver) -> None:
    """Wait until the driver has renewed its lease some times."""
    count = lambda: int(json.loads(_lease(sweep).read_text())["count"])  # noqa: E731
    before = count()
    sweep.wait_for("the lease is renewed", lambda: count() >= before + HEARTBEATS, driver)


def _lease(sweep: ChaosSweep) -> Any:
    return sweep.log.with_name(LEASE)


def test_two_drivers_and_two_sweeps_in_one_store_and_storage(
    make_sweep: MakeSweep, calm: dict[str, Any], tried: Tried
) -> None:
    sweep = make_sweep()
    with tried("two drivers at once", "second driver of a running sweep", "two sweeps in one store and storage"):
        with (
            sweep.start("sweep.name=other", "sweep.registry.model=other") as other,
            sweep.start() as first,
            sweep.start() as second,
        ):
            drivers = first, second
            ended = sweep.wait_for("a driver is refused", lambda: [x for x in drivers if x.poll() is not None])
            assert [driver.returncode for driver in ended] == [2]
            _require_refusal(sweep.errors(2 + drivers.index(ended[0])))
            (running,) = set(drivers) - set(ended)
            sweep.wait_for("the other one trains", lambda: sweep.count(EpochReported), running)
            _require_refusal(sweep.run(*COMMAND, status=2).stderr)
            assert [sweep.wait_for_end(driver) for driver in (running, other)] == [0, 0], sweep.stderr
        for name in ("small", "other"):
            evaluations = sweep.outcome(name)["report"]["test_evaluations"]
            assert evaluations["test folders"] in (1, 2), "of all sweeps in the storage so far"
            sweep.require_as({**calm, "report": calm["report"] | {"test_evaluations": evaluations}}, name)


def _require_refusal(errors: str) -> None:
    (line,) = [line for line in errors.splitlines() if line.startswith("reid-tune: ")]
    assert "in use by another running process" in line and "Traceback" not in errors, errors
