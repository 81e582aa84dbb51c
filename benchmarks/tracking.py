"""Cost of MLflow: sending a large sweep, and the driver's cost with a healthy, a hanging and an unreachable store.

    python benchmarks/tracking.py [--trials 1000] [--epochs 50]

Sending: the log of a finished sweep, with the metrics and parameters of real sweeps, into a new SQLite store. The plain
way is a call of MlflowClient for each parameter and each metric of each epoch, as loggers make them; it sends a few
trials, and its time is scaled to all.

Driver: reports are written into an event log at a fixed rate, as by a driver, without a sender, and with senders to
stores that work, hang (a server that is stopped) or are unreachable.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import machine
from rich.table import Table

from reid_tune.config.experiment import Experiment
from reid_tune.journal.event_log import EventLog, read_events
from reid_tune.journal.events import (
    AttemptStarted,
    DriverStarted,
    EpochReported,
    Event,
    RunEnded,
    RunSuggested,
    StageStarted,
    SweepHeader,
    to_line,
)
from reid_tune.report.markdown import SweepPage
from reid_tune.tables import print_table
from reid_tune.tracking.mlflow_names import metric_points, milliseconds, parameter_text, public_spec
from reid_tune.tracking.sender import Sender, send_all
from reid_tune.tracking.store import client

PLAIN_TRIALS = 4  # trials that the plain way sends
START = 1_700_000_000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of each driver")
    parser.add_argument("--rate", type=float, default=20.0, help="reports per second")
    parser.add_argument("--quick", action="store_true", help="small sizes, only to check that the script runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.epochs, arguments.seconds = 6, 4, 2.0
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        measure_sending(Path(folder), arguments)
        measure_driver(Path(folder), arguments)


def events(trials: int, epochs: int) -> Iterator[Event]:
    """Yield the events of a sweep with `trials` trials, eight of which run at a time."""
    clock = iter(range(10**9))

    def now() -> float:
        return START + 0.1 * next(clock)

    sweep = {"budget": {"trials": trials}, "objective": {"metric": "mAP"}, "space": {"train.optim.base_lr": {}}}
    spec = Experiment().parameters()
    yield SweepHeader(time=now(), name="large", uid="0" * 16, tracking_uri="", sweep=sweep, spec=spec)
    data = {"folders": ["/data/train"], "fingerprint": "0" * 32}
    process: dict[str, Any] = {"pid": 1, "host": "host", "user": "user", "command": [], "resumed": False}
    yield DriverStarted(time=now(), **process, environment={"data": data})
    yield StageStarted(time=now(), stage="search")
    for first in range(0, trials, 8):
        runs = [f"trials/{number:04d}" for number in range(first, min(first + 8, trials))]
        for number, run in enumerate(runs):
            rate = 1e-3 / (1 + first + number)
            yield RunSuggested(time=now(), run=run, parameters={"train.optim.base_lr": rate}, origin="sampler")
            yield AttemptStarted(time=now(), run=run, attempt=1, cpus=1, gpus=0)
        for epoch in range(1, epochs + 1):
            for run in runs:
                yield EpochReported(time=now(), run=run, epoch=epoch, metrics=metrics(epoch), usage=usage(epoch))
        for run in runs:
            yield RunEnded(time=now(), run=run, state="finished", epoch=epochs)


def metrics(epoch: int) -> dict[str, float]:
    names = ("loss", "loss/identity", "loss/triplet", "accuracy", "lr", "images_per_second")
    return dict.fromkeys((*names, "mAP", "mINP", "Rank-1", "Rank-5", "Rank-10"), 1 / epoch)


def usage(epoch: int) -> dict[str, float]:
    names = ("cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage")
    return {f"system/{name}": 50.0 + epoch for name in names} | {"train/memory_megabytes": 900.0}


def write_log(path: Path, events: Iterator[Event]) -> Path:
    path.parent.mkdir()
    with path.open("wb") as file:
        for event in events:
            file.write(to_line(event) + b"\n")
    return path


def measure_sending(folder: Path, arguments: argparse.Namespace) -> None:
    log = write_log(folder / "large" / "events.jsonl", events(arguments.trials, arguments.epochs))
    uri = f"sqlite:///{folder}/sent.db"
    client(uri)
    cpu, wall = time.process_time(), time.perf_counter()
    sent = send_all(log, uri, SweepPage).events
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    plain = arguments.trials / PLAIN_TRIALS * send_plainly(folder, events(PLAIN_TRIALS, arguments.epochs))
    table = Table("sending", "plain, scaled", "reid-tune", "ratio", "target")
    name = f"{arguments.trials} trials x {arguments.epochs} epochs, {sent} events, s"
    table.add_row(name, f"{plain:.0f}", f"{wall:.1f}", f"{plain / wall:.1f}x", "600")
    table.add_row("of it CPU, s", "", f"{cpu:.1f}", "", "")
    table.add_row("store, MB", "", f"{(folder / 'sent.db').stat().st_size / 1e6:.0f}", "", "")
    print_table(table)


def send_plainly(folder: Path, events: Iterator[Event]) -> float:
    """Send each value with a separate call, and return the seconds."""
    connection = client(f"sqlite:///{folder}/plain.db")
    experiment = connection.create_experiment("large", str(folder / "plain"))
    runs: dict[str, str] = {}
    spec: dict[str, Any] = {}
    started = time.perf_counter()
    for event in events:
        if isinstance(event, SweepHeader):
            spec = event.spec
        elif isinstance(event, RunSuggested):
            run = runs[event.run] = connection.create_run(experiment).info.run_id
            for key, value in public_spec({**spec, **event.parameters}).items():
                connection.log_param(run, key, parameter_text(value))
        elif isinstance(event, EpochReported):
            for metric in metric_points(event):
                connection.log_metric(runs[event.run], metric.key, metric.value, milliseconds(event), metric.step)
        elif isinstance(event, RunEnded):
            connection.set_terminated(runs[event.run])
    return time.perf_counter() - started


def measure_driver(folder: Path, arguments: argparse.Namespace) -> None:
    table = Table("driver with", "a report, median ms", "slowest, ms", "CPU of a core, %", "of the time", "sent")
    for name, store in stores(folder).items():
        with store as uri:
            table.add_row(name, *drive(folder / f"driver of {name}", uri, arguments))
    print_table(table)


def stores(folder: Path) -> dict[str, Any]:
    return {
        "no store": nullcontext(None),
        "SQLite": nullcontext(f"sqlite:///{folder}/driver.db"),
        "a server": server(folder / "well"),
        "a server that hangs": server(folder / "hanging", stop=True),
        "an unreachable server": nullcontext("http://127.0.0.1:9"),
    }


def drive(folder: Path, uri: str | None, arguments: argparse.Namespace) -> list[str]:
    """Write reports of one trial at the rate, or as fast as possible when late, and return the row's cells."""
    lines = list(events(1, int(arguments.rate * arguments.seconds)))
    folder.mkdir()
    if uri and uri.startswith("sqlite"):
        client(uri)
    milliseconds_of_reports = []
    with EventLog(folder / "events.jsonl") as log:
        sender = Sender(log.path, uri, SweepPage) if uri else None
        cpu, started = time.process_time(), time.perf_counter()
        for number, event in enumerate(lines):
            time.sleep(max(0.0, started + number / arguments.rate - time.perf_counter()))
            before = time.perf_counter()
            log.append(replace(event, time=time.time()))
            milliseconds_of_reports.append(1000 * (time.perf_counter() - before))
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        assert len(read_events(log.path)) == len(lines)
        unsent = sender.lag if sender else len(lines)
        if sender:
            sender.close(0, 0)
    expected = (len(lines) - 1) / arguments.rate
    shares = [f"{100 * cpu / wall:.1f}", f"{100 * wall / expected:.2f} %", f"{len(lines) - unsent} of {len(lines)}"]
    return [f"{statistics.median(milliseconds_of_reports):.2f}", f"{max(milliseconds_of_reports):.1f}", *shares]


@contextmanager
def server(folder: Path, stop: bool = False) -> Iterator[str]:
    """Run a real MLflow server; with `stop` it is stopped once it answers, so that it hangs."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        while not is_ready(port):
            time.sleep(0.1)
        if stop:
            os.killpg(process.pid, signal.SIGSTOP)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as response:
            return response.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main()
