"""Scaling of a sweep over nodes, and the load of 100 nodes on the driver's machine.

    python benchmarks/scaling.py [--nodes 1 2 4 8] [--seconds 60] [--trials 3]

Nodes of one CPU, and a head without CPUs, are Ray processes on this machine, joined as with --address. The search, the
log and the runner are those of a sweep, without the live table and MLflow. Trials sleep instead of training: they
import the modules of a trial, sleep in equal steps with a report after each, 5 per second of all nodes together, and
write a ResNet-18 before the last report. About 25 minutes on 2 cores.

Linear is the same number of trials per node as with the fewest nodes. Start-up is the time from an attempt's start to
its first step. The cores of one machine do it for all nodes, and it is also subtracted. "Sleeping" is the share of the
nodes' remaining time in which trials sleep. It is not relative to another row: trials on fewer nodes report more often,
so they wait more for the driver. A gap is the time from the end of a trial to the next start.

The driver's CPU time in windows of a sixth of a trial is explained by the starts, reports and seconds in them, with
least squares over all numbers of nodes (± standard errors). The processes on the head are those of a small real
training with two workers. Each of 100 nodes is assumed to start and report as often as a node of the last row, and to
have such a run.
"""

import importlib
import json
import math
import os
import re
import secrets
import shutil
import statistics
import threading
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import numpy as np
import psutil
import torch
from common import IDENTITIES
from rich.table import Table
from sweep_overhead import CONSTRAINTS, PLAIN, TINY, make_sweep

from reid_tune.demo import draw_demo_data
from reid_tune.execution.cluster.session import ray_session
from reid_tune.execution.placement import compute_placement
from reid_tune.execution.run_source import Attempt
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import AttemptStarted, EpochReported, Event, RunEnded
from reid_tune.journal.journal import Journal
from reid_tune.sweep.resume import make_header
from reid_tune.sweep.stages.search import TrialSource
from reid_tune.tables import print_table

REPORTS_PER_SECOND, MANY = 5, 100
# Processes on the head of a run with several workers, of Tune and of Train.
TUNE, *TRAIN = "ImplicitFunc", "TrainController", "SynchronizationActor"
HEADS = (
    *("nodes", "trials per hour", "of linear, %", "of linear without start-up, %", "sleeping without start-up, %"),
    *("start-up, s", "wait of a report, ms", "median gap, s", "largest gap, s", "driver, % of a core"),
)
TARGETS = ("target", "", "", "95 with 8", "95 with 8", "", "", "0.5", "0.5", "")


class ObservedSource(TrialSource):
    """Search that records the time and this process's CPU seconds at its first start and about once a second."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.samples: list[tuple[float, float]] = []

    def next_attempt(self) -> Attempt | None:
        if not self.samples:
            self._sample()
        return super().next_attempt()

    def poll(self) -> None:
        self._sample()
        super().poll()

    def _sample(self) -> None:
        self.samples.append((time.time(), time.process_time()))


@dataclass(frozen=True)
class SleepingSweep:
    """Measurements of a sweep of sleeping trials.

    Attributes:
        nodes: Number of nodes.
        seconds: Seconds that a trial sleeps.
        events: Events of the log.
        samples: Times and CPU seconds of the driver.
    """

    nodes: int
    seconds: float
    events: list[Event]
    samples: list[tuple[float, float]]

    def times(self, kind: type[Event]) -> list[float]:
        return [event.time for event in self.events if isinstance(event, kind)]

    def rate(self, kind: type[Event]) -> float:
        """Return the number of events of a kind per second and node."""
        return len(self.times(kind)) / (self.times(RunEnded)[-1] - self.times(AttemptStarted)[0]) / self.nodes

    def start_up_and_wait(self) -> tuple[float, float]:
        """Return the mean seconds of a start-up, and those that a trial waits for a report."""
        started = {event.run: event.time for event in self.events if isinstance(event, AttemptStarted)}
        last = {event.run: event for event in self.events if isinstance(event, EpochReported)}
        start_ups = [event.metrics["started"] - started[run] for run, event in last.items()]
        waits = [event.metrics["waited"] / (event.epoch - 1) for event in last.values()]
        return statistics.mean(start_ups), statistics.mean(waits)

    def gaps(self) -> list[float]:
        """Return the seconds from each end of a trial to the next start."""
        gaps, ends = [], deque[float]()
        for event in self.events:
            if isinstance(event, RunEnded):
                ends.append(event.time)
            elif isinstance(event, AttemptStarted) and ends:
                gaps.append(event.time - ends.popleft())
        return gaps or [math.nan]

    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the starts, reports and seconds [window, 3], and the driver's CPU seconds [window]."""
        edges = self.samples[:1]
        for sample in self.samples:
            if sample[0] - edges[-1][0] >= max(1, self.seconds / 6):
                edges.append(sample)
        times, cpu = np.array(edges).T
        counts = [np.histogram(self.times(kind), times)[0] for kind in (AttemptStarted, EpochReported)]
        return np.column_stack([*counts, np.diff(times)]), np.diff(cpu)

    def cells(self, fewest: "SleepingSweep") -> list[str]:
        """Return the cells of this sweep's row.

        Args:
            fewest: Sweep on the fewest nodes, which defines linear scaling.
        """
        (start_up, wait), (fewest_start_up, _) = self.start_up_and_wait(), fewest.start_up_and_wait()
        whole, linear, gaps = 1 / self.rate(RunEnded), 1 / fewest.rate(RunEnded), self.gaps()
        shares = linear / whole, (linear - fewest_start_up) / (whole - start_up), self.seconds / (whole - start_up)
        span, cpu = np.subtract(self.samples[-1], self.samples[0])
        values = [3600 * self.nodes / whole, *(100 * share for share in shares), start_up, 1e3 * wait]
        values += [statistics.median(gaps), max(gaps), 100 * cpu / span]
        return [str(self.nodes), *(f"{value:.{3 if value < 1 else 1}f}" for value in values)]


def main() -> None:
    options = parse()
    print(common.machine(torch.device("cpu")), flush=True)
    with common.temporary_workspace() as folder:
        # Before Ray is imported; its files are written to the temporary folder.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.update(token, RAY_TMPDIR=str(folder), RAY_USAGE_STATS_ENABLED="0")
        memory = measure_head(folder)
        sweeps = [measure(count, options, folder / f"nodes-{count}") for count in options.nodes]
    rows = [*(sweep.cells(sweeps[0]) for sweep in sweeps), TARGETS]
    show(f"a sweep over nodes, {options.trials} trials of {options.seconds:g} s on each", HEADS, rows)
    show(f"the driver's machine, and the load of {MANY} nodes on it", ("", "measured"), [*load_rows(sweeps, memory)])


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of nodes")
    parser.add_argument("--seconds", type=float, default=60, help="seconds that a trial sleeps")
    parser.add_argument("--trials", type=int, default=3, help="trials per node")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.seconds, options.trials = [1, 2], 2.0, 2
    options.nodes.sort()
    return options


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(title)
    table = Table(*heads)
    for row in rows:
        table.add_row(*row)
    print_table(table)


def measure(count: int, options: Namespace, folder: Path) -> SleepingSweep:
    """Run a sweep of sleeping trials on `count` nodes."""
    epochs = max(2, round(REPORTS_PER_SECOND * options.seconds / count))
    values = {"model.backbone": common.TINY, "train.num_epochs": epochs, "dataset.train_dataset_dir": "not-read"}
    sweep = make_sweep(folder, values, constraints=CONSTRAINTS, budget={"trials": count * options.trials})
    with nodes(count), Journal(sweep.folder) as journal:
        from reid_tune.execution import tune_runner as runner

        journal.emit(make_header(sweep))
        source = ObservedSource(sweep, journal, ())
        with patch.object(runner, "run_single_worker", sleeper(options.seconds)):
            runner.run_all(
                source, lambda: compute_placement(sweep.file.resources, 1).max_concurrent, 1, folder / "ray", 600
            )
        for run in journal.state.runs.values():
            assert run.state == "finished" and run.attempts == 1, f"{run.name}: {run.state}, {run.retries}"
    shutil.rmtree(folder / "ray", ignore_errors=True)
    return SleepingSweep(count, options.seconds, read_events(journal.path), source.samples)


def sleeper(seconds: float) -> Callable[[dict[str, Any]], None]:
    """Return a trial, as a Tune function, that sleeps instead of training."""

    def sleep(config: dict[str, Any]) -> None:
        import torch
        from ray import tune

        from reid_tune.checkpoints.filenames import LATEST
        from reid_tune.config.experiment import Experiment
        from reid_tune.files import atomic_path
        from reid_tune.modeling.network import build_seeded_network

        importlib.import_module("reid_tune.training.loop")
        torch.set_num_threads(config["threads"])
        experiment = Experiment.model_validate_json(config["spec"])
        network = build_seeded_network(experiment.model, IDENTITIES, experiment.train.seed)
        epochs, waited, started = experiment.train.num_epochs, 0.0, time.time()
        for epoch in range(1, epochs + 1):
            time.sleep(seconds / epochs)
            if epoch == epochs:
                with atomic_path(Path(config["folder"], LATEST)) as temporary:
                    torch.save(network.state_dict(), temporary)
            metrics = {"epoch": epoch, "mAP": epoch / (epoch + 2), "started": started, "waited": waited}
            report_start = time.perf_counter()
            tune.report({"payload": json.dumps(metrics)})
            waited += time.perf_counter() - report_start

    return sleep


@contextmanager
def nodes(count: int) -> Iterator[int]:
    """Start a cluster and join it for the block; yields the process id of the head's raylet."""
    from ray.cluster_utils import Cluster
    from ray.util import get_node_ip_address

    cluster = Cluster()
    try:
        for cpus in (0, *[1] * count):
            cluster.add_node(num_cpus=cpus, node_ip_address=get_node_ip_address(), include_dashboard=False)
        # On few cores it takes long until all nodes have started.
        deadline = time.monotonic() + 60
        while psutil.cpu_percent(interval=2) > 30 and time.monotonic() < deadline:
            pass
        with ray_session(cluster.address):
            yield cluster.head_node.all_processes["raylet"][0].process.pid
    finally:
        processes = psutil.Process().children(recursive=True)
        cluster.shutdown()
        psutil.wait_procs(processes, timeout=30)


def measure_head(folder: Path) -> dict[str, float]:
    """Return the peak private memory in bytes of each process of a run with two workers on the head, by name."""
    draw_demo_data(folder / "data", identities=40, images=6)
    data = {"dataset.train_dataset_dir": str(folder / "data" / "bounding_box_train")}
    sweep, memory, stopped = make_sweep(folder / "real", TINY | data), dict[str, float](), threading.Event()
    with nodes(2) as raylet:
        from ray_trials import run_trials

        thread = threading.Thread(target=sample_memory, args=(raylet, memory, stopped))
        thread.start()
        try:
            run_trials(sweep, PLAIN, 1, 2, 1)
        finally:
            stopped.set()
            thread.join()
    assert TUNE in memory, f"no process ray::{TUNE} was seen"
    return memory


def sample_memory(raylet: int, memory: dict[str, float], stopped: threading.Event) -> None:
    """Update the peak private memory of Ray's processes every 0.5 s until the event is set."""
    while not stopped.wait(0.5):
        for process in psutil.Process(raylet).children(recursive=True):
            with suppress(psutil.Error):
                match = re.match(r"ray::(\w+)", " ".join(process.cmdline()))
                if match and match[1] in (TUNE, *TRAIN):
                    memory[match[1]] = max(memory.get(match[1], 0.0), float(process.memory_full_info().uss))


def load_rows(sweeps: Sequence[SleepingSweep], process_memory: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Yield rows of the driver's CPU time by cause, a run's memory on the head, and both with many nodes."""
    (start, report, second), errors = fit_cpu_seconds(sweeps)
    causes = {"start of a trial": start, "report": report, "second": second}
    for (name, value), error in zip(causes.items(), errors, strict=True):
        yield f"CPU of a {name}, ms", f"{1e3 * value:.2f} ± {1e3 * error:.2f}"
    for name, size in process_memory.items():
        yield f"memory of {name} of a run with 2 workers, MB", f"{size / 1e6:.0f}"
    starts, reports = (sweeps[-1].rate(kind) for kind in (AttemptStarted, EpochReported))
    node_load, run_memory, memory = (
        start * starts + report * reports,
        sum(process_memory.values()),
        psutil.virtual_memory().total,
    )
    by_core, by_memory = (1 - second) / node_load if node_load > 0 else math.inf, memory / run_memory
    yield f"{MANY} nodes: starts and reports a second", f"{MANY * starts:.2f} and {MANY * reports:.2f}"
    yield f"{MANY} nodes: share of one core, %", f"{100 * (second + MANY * node_load):.0f}"
    yield f"{MANY} nodes: memory of {TUNE} alone, GB", f"{MANY * process_memory[TUNE] / 1e9:.1f}"
    yield f"{MANY} nodes: memory of all of these, GB", f"{MANY * run_memory / 1e9:.1f}"
    yield "nodes for which one core is enough", f"{by_core:,.0f}"
    yield f"nodes for which this machine's {memory / 1e9:.0f} GB are enough", f"{by_memory:,.0f}"
    yield "first limit", "the driver's core" if by_core < by_memory else "the head's memory"


def fit_cpu_seconds(sweeps: Sequence[SleepingSweep]) -> tuple[np.ndarray, np.ndarray]:
    """Return the CPU seconds of a start, a report and a second, and their standard errors."""
    rows, cpu = (np.concatenate(parts) for parts in zip(*(sweep.windows() for sweep in sweeps), strict=True))
    inverse = np.linalg.pinv(rows.T @ rows)
    values = inverse @ rows.T @ cpu
    noise = float(((cpu - rows @ values) ** 2).sum()) / max(1, len(cpu) - 3)
    return values, np.sqrt(noise * np.diag(inverse))


if __name__ == "__main__":
    main()
