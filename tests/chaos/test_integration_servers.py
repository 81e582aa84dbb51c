"""A sweep in a bucket, with an MLflow server, whose servers are killed, started again and suspended."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ..helpers.mlflow_servers import Server, free_port, mlflow_server
from ..helpers.outages import count_waiting, hanging_up
from ..helpers.s3_server import BUCKET, S3Process, s3_process
from ..helpers.second_servers import needs_s3rver
from .conftest import MakeSweep
from .points import SHORT
from .sweeps import ChaosSweep, is_suspended, wait_for_suspension
from .table import Tried

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600), needs_s3rver]

REQUESTS = 3 if SHORT else 20  # that a server misses in an outage


class MlflowProcess:
    """An MLflow server that can be killed and started again with the same store and address."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir()
        self.port, self._folder, self._tests = free_port(), folder, stack
        self._stack: ExitStack | None = None
        self._server: Server | None = None

    def start(self) -> None:
        self._stack = self._tests.enter_context(ExitStack())
        self._server = self._stack.enter_context(mlflow_server(self._folder, port=self.port))

    def signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.signal(number)

    def kill(self) -> None:
        assert self._stack is not None
        self._stack.close()


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[MlflowProcess]:
    with ExitStack() as stack:
        server = MlflowProcess(tmp_path / "mlflow", stack)
        server.start()
        yield server


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Process]:
    (tmp_path / "s3").mkdir()
    with s3_process(tmp_path / "s3") as server:
        yield server


@pytest.fixture
def sweep(make_sweep: MakeSweep, mlflow: MlflowProcess, bucket: S3Process) -> ChaosSweep:
    made = make_sweep(storage=f"s3://{BUCKET}/runs")
    made.environment |= bucket.environment
    made.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{mlflow.port}"
    made.environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "2"
    (made.folder / "runs").symlink_to(made.folder / "cache" / "s3" / "drivers" / BUCKET / "runs")
    return made


def test_outages_of_the_bucket_and_of_mlflow_lose_nothing(
    sweep: ChaosSweep, mlflow: MlflowProcess, bucket: S3Process, calm: dict[str, Any], tried: Tried
) -> None:
    names = ["MLflow", "S3"]
    with tried(*(f"{how}: {name} server of a sweep" for how in ("killed", "suspended") for name in names)):
        outages = {
            "attempt-trials/0000": (bucket, _kill),
            "attempt-trials/0001": (bucket, _suspend),
            "stage_started-confirm": (mlflow, _suspend),
            "stage_started-refit": (mlflow, _kill),
        }
        append = "driver after reid_tune.journal.event_log:EventLog.append"
        points = [f"{append} {event} SIGSTOP" for event in outages]
        with sweep.start(points=points) as driver:
            for point, (server, outage) in zip(points, outages.values(), strict=True):
                wait_for_suspension(sweep, driver, point)
                outage(sweep, driver, server)
            status = sweep.wait_for_end(driver)
        # A fast machine registers the model while MLflow's server is still unreachable.
        assert status in (0, 3) and "Traceback" not in sweep.stderr, f"status {status}: {sweep.stderr}"
        if status or "sync" in sweep.stderr:
            sweep.finish()
        sweep.require_as(calm)


def _kill(sweep: ChaosSweep, driver: Any, server: MlflowProcess | S3Process) -> None:
    """Kill a server, and start it again when requests have failed, or when the sweep can do no more."""
    server.kill()
    with hanging_up(server.port) as connections:
        _continue(driver)
        sweep.wait_for("requests fail", lambda: connections() >= REQUESTS or _is_at_rest(driver))
    server.start()


def _suspend(sweep: ChaosSweep, driver: Any, server: MlflowProcess | S3Process) -> None:
    """Suspend a server until requests wait for it, or until the sweep can do no more."""
    server.signal(signal.SIGSTOP)
    _continue(driver)
    sweep.wait_for("requests wait", lambda: count_waiting(server.port) >= REQUESTS or _is_at_rest(driver))
    server.signal(signal.SIGCONT)


def _continue(driver: Any) -> None:
    driver.send_signal(signal.SIGCONT)
    while is_suspended(driver):
        time.sleep(0.01)


def _is_at_rest(driver: Any) -> bool:
    """Whether the driver has ended, or has suspended itself at its next point: a fast one needs few requests."""
    return driver.poll() is not None or is_suspended(driver)
