"""How a sweep scales over nodes, and what 100 nodes would ask of the driver's machine.

    python benchmarks/scaling.py [--nodes 1 2 4 8] [--seconds 60] [--trials 3]

Nodes of one CPU, beside a head without any, are Ray processes on this machine, joined as by --address. The search, the
log and the runner are those of a sweep, without the live table and MLflow. Trials sleep instead of training: they
import what a trial imports, sleep in equal steps with a report behind each, 5 a second of all nodes together, and write
a ResNet-18 before the last. About 25 minutes on 2 cores.

Linear is as many trials for each node as with the fewest nodes. Start-up is the time from an attempt's start to its
first step; the cores of one machine do it for all nodes, so it is taken away, too. "Sleeping" is the share of the rest
of the nodes' time, compared with nothing: trials on fewer nodes report more often, and so wait more for the driver. A
gap is the time from a trial's end to the next start.

The driver's CPU time in windows of a sixth of a trial is laid to the starts, reports and seconds in them, by least
squares over all numbers of nodes (± standard errors). The processes on the head are those of a small real training with
two workers. Each of 100 nodes starts and reports as often as one of the last row, and has such a run of its own.
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

REPORTS, MANY = 5, 100
# What a run with several workers has on the head, by Tune and by Train.
TUNE, *TRAIN = "ImplicitFunc", "TrainController", "SynchronizationActor"
HEADS = (
    *("nodes", "trials per hour", "of linear, %", "of linear without start-up, %", "sleeping without start-up, %"),
    *("start-up, s", "wait of a report, ms", "median gap, s", "largest gap, s", "driver, % of a core"),
)
WANTED = ("wanted", "", "", "95 with 8", "95 with 8", "", "", "0.5", "0.5", "")


class Observed(TrialSource):
    """The search, which notes time and this process's CPU seconds at its first start and about once a second."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.noted: list[tuple[float, float]] = []

    def next_attempt(self) -> Attempt | None:
        if not self.noted:
            self._note()
        return super().next_attempt()

    def poll(self) -> None:
        self._note()
        super().poll()

    def _note(self) -> None:
        self.noted.append((time.time(), time.process_time()))


@dataclass(frozen=True)
class Measured:
    """A sweep on some nodes, whose trials sleep for some seconds."""

    nodes: int
    seconds: float
    events: list[Event]
    noted: list[tuple[float, float]]

    def times(self, kind: type[Event]) -> list[float]:
        return [event.time for event in self.events if isinstance(event, kind)]

    def rate(self, kind: type[Event]) -> float:
        """Events of a kind in a second of one node."""
        return len(self.times(kind)) / (self.times(RunEnded)[-1] - self.times(AttemptStarted)[0]) / self.nodes

    def start_up_and_wait(self) -> tuple[float, float]:
        """Mean seconds of a start-up, and those that a report keeps a trial from its next step."""
        started = {event.run: event.time for event in self.events if isinstance(event, AttemptStarted)}
        last = {event.run: event for event in self.events if isinstance(event, EpochReported)}
        start_ups = [event.metrics["begun"] - started[run] for run, event in last.items()]
        waits = [event.metrics["waited"] / (event.epoch - 1) for event in last.values()]
        return statistics.mean(start_ups), statistics.mean(waits)

    def gaps(self) -> list[float]:
        found, ends = [], deque[float]()
        for event in self.events:
            if isinstance(event, RunEnded):
                ends.append(event.time)
            elif isinstance(event, AttemptStarted) and ends:
                found.append(event.time - ends.popleft())
        return found or [math.nan]

    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts, reports and seconds [window, 3], and the driver's CPU seconds [window]."""
        edges = self.noted[:1]
        for now in self.noted:
            if now[0] - edges[-1][0] >= max(1, self.seconds / 6):
                edges.append(now)
        times, cpu = np.array(edges).T
        counts = [np.histogram(self.times(kind), times)[0] for kind in (AttemptStarted, EpochReported)]
        return np.column_stack([*counts, np.diff(times)]), np.diff(cpu)

    def cells(self, fewest: "Measured") -> list[str]:
        (start_up, wait), (before, _) = self.start_up_and_wait(), fewest.start_up_and_wait()
        whole, linear, gaps = 1 / self.rate(RunEnded), 1 / fewest.rate(RunEnded), self.gaps()
        shares = linear / whole, (linear - before) / (whole - start_up), self.seconds / (whole - start_up)
        span, cpu = np.subtract(self.noted[-1], self.noted[0])
        values = [3600 * self.nodes / whole, *(100 * share for share in shares), start_up, 1e3 * wait]
        values += [statistics.median(gaps), max(gaps), 100 * cpu / span]
        return [str(self.nodes), *(f"{value:.{3 if value < 1 else 1}f}" for value in values)]


def main() -> None:
    given = parse()
    print(common.machine(torch.device("cpu")), flush=True)
    with common.workplace() as folder:
        # Before Ray is imported; its files go where they are removed.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.update(token, RAY_TMPDIR=str(folder), RAY_USAGE_STATS_ENABLED="0")
        held = head_of_run(folder)
        found = [measure(count, given, folder / f"nodes-{count}") for count in given.nodes]
    rows = [*(one.cells(found[0]) for one in found), WANTED]
    show(f"a sweep over nodes, {given.trials} trials of {given.seconds:g} s on each", HEADS, rows)
    show(f"the driver's machine, and what {MANY} nodes would ask of it", ("", "measured"), [*demands(found, held)])


def parse() -> Namespace:
    parser = common.options(__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of nodes")
    parser.add_argument("--seconds", type=float, default=60, help="that a trial sleeps")
    parser.add_argument("--trials", type=int, default=3, help="of each node")
    given = parser.parse_args()
    if given.quick:
        given.nodes, given.seconds, given.trials = [1, 2], 2.0, 2
    given.nodes.sort()
    return given


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(title)
    table = Table(*heads)
    for row in rows:
        table.add_row(*row)
    print_table(table)


def measure(count: int, given: Namespace, folder: Path) -> Measured:
    """Run a sweep of sleeping trials on that many nodes."""
    epochs = max(2, round(REPORTS * given.seconds / count))
    values = {"model.backbone": common.TINY, "train.num_epochs": epochs, "dataset.train_dataset_dir": "not-read"}
    sweep = make_sweep(folder, values, constraints=CONSTRAINTS, budget={"trials": count * given.trials})
    with nodes(count), Journal(sweep.folder) as journal:
        from reid_tune.execution import tune_runner as runner

        journal.emit(make_header(sweep))
        source = Observed(sweep, journal, ())
        with patch.object(runner, "run_single_worker", sleeper(given.seconds)):
            runner.run_all(
                source, lambda: compute_placement(sweep.file.resources, 1).max_concurrent, 1, (), folder / "ray", 600
            )
        for run in journal.state.runs.values():
            assert run.state == "finished" and run.attempts == 1, f"{run.name}: {run.state}, {run.retries}"
    shutil.rmtree(folder / "ray", ignore_errors=True)
    return Measured(count, given.seconds, read_events(journal.path), source.noted)


def sleeper(seconds: float) -> Callable[[dict[str, Any]], None]:
    """A trial, as a Tune function, that sleeps instead of training."""

    def sleep(config: dict[str, Any]) -> None:
        import torch
        from ray import tune

        from reid_tune.checkpoints.filenames import LATEST
        from reid_tune.config.experiment import Experiment
        from reid_tune.files import atomic_path
        from reid_tune.modeling.network import build_seeded_network

        importlib.import_module("reid_tune.training.loop")
        torch.set_num_threads(config["threads"])
        experiment = Experiment.model_validate(config["spec"])
        network = build_seeded_network(experiment.model, IDENTITIES, experiment.train.seed)
        epochs, waited, begun = experiment.train.num_epochs, 0.0, time.time()
        for epoch in range(1, epochs + 1):
            time.sleep(seconds / epochs)
            if epoch == epochs:
                with atomic_path(Path(config["folder"], LATEST)) as temporary:
                    torch.save(network.state_dict(), temporary)
            metrics = {"epoch": epoch, "mAP": epoch / (epoch + 2), "begun": begun, "waited": waited}
            asked = time.perf_counter()
            tune.report({"payload": json.dumps(metrics)})
            waited += time.perf_counter() - asked

    return sleep


@contextmanager
def nodes(count: int) -> Iterator[int]:
    """A cluster for the block, which this process has joined; gives the process id of the head's raylet."""
    from ray.cluster_utils import Cluster
    from ray.util import get_node_ip_address

    own = Cluster()
    try:
        for cpus in (0, *[1] * count):
            own.add_node(num_cpus=cpus, node_ip_address=get_node_ip_address(), include_dashboard=False)
        # On few cores it takes long until all of them have begun.
        latest = time.monotonic() + 60
        while psutil.cpu_percent(interval=2) > 30 and time.monotonic() < latest:
            pass
        with ray_session(own.address):
            yield own.head_node.all_processes["raylet"][0].process.pid
    finally:
        family = psutil.Process().children(recursive=True)
        own.shutdown()
        psutil.wait_procs(family, timeout=30)


def head_of_run(folder: Path) -> dict[str, float]:
    """The most bytes that each process of a run with two workers has to itself on the head, by name."""
    draw_demo_data(folder / "data", identities=40, images=6)
    data = {"dataset.train_dataset_dir": str(folder / "data" / "bounding_box_train")}
    sweep, held, over = make_sweep(folder / "real", TINY | data), dict[str, float](), threading.Event()
    with nodes(2) as raylet:
        from ray_trials import ours

        thread = threading.Thread(target=watch, args=(raylet, held, over))
        thread.start()
        try:
            ours(sweep, PLAIN, 1, 2, 1)
        finally:
            over.set()
            thread.join()
    assert TUNE in held, f"no process ray::{TUNE} was seen"
    return held


def watch(raylet: int, held: dict[str, float], over: threading.Event) -> None:
    while not over.wait(0.5):
        for process in psutil.Process(raylet).children(recursive=True):
            with suppress(psutil.Error):
                named = re.match(r"ray::(\w+)", " ".join(process.cmdline()))
                if named and named[1] in (TUNE, *TRAIN):
                    held[named[1]] = max(held.get(named[1], 0.0), float(process.memory_full_info().uss))


def demands(found: Sequence[Measured], held: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Rows: the driver's CPU time by cause, a run's memory on the head, and both with many nodes."""
    (start, report, second), errors = fit(found)
    causes = {"start of a trial": start, "report": report, "second": second}
    for (name, value), error in zip(causes.items(), errors, strict=True):
        yield f"CPU of a {name}, ms", f"{1e3 * value:.2f} ± {1e3 * error:.2f}"
    for name, size in held.items():
        yield f"memory of {name} of a run with 2 workers, MB", f"{size / 1e6:.0f}"
    starts, reports = (found[-1].rate(kind) for kind in (AttemptStarted, EpochReported))
    of_node, of_run, memory = start * starts + report * reports, sum(held.values()), psutil.virtual_memory().total
    by_core, by_memory = (1 - second) / of_node if of_node > 0 else math.inf, memory / of_run
    yield f"{MANY} nodes: starts and reports a second", f"{MANY * starts:.2f} and {MANY * reports:.2f}"
    yield f"{MANY} nodes: share of one core, %", f"{100 * (second + MANY * of_node):.0f}"
    yield f"{MANY} nodes: memory of {TUNE} alone, GB", f"{MANY * held[TUNE] / 1e9:.1f}"
    yield f"{MANY} nodes: memory of all of these, GB", f"{MANY * of_run / 1e9:.1f}"
    yield "nodes for which one core is enough", f"{by_core:,.0f}"
    yield f"nodes for which this machine's {memory / 1e9:.0f} GB are enough", f"{by_memory:,.0f}"
    yield "binds first", "the driver's core" if by_core < by_memory else "the head's memory"


def fit(found: Sequence[Measured]) -> tuple[np.ndarray, np.ndarray]:
    """CPU seconds of a start, a report and a second, and their standard errors."""
    rows, used = (np.concatenate(parts) for parts in zip(*(one.windows() for one in found), strict=True))
    inverse = np.linalg.pinv(rows.T @ rows)
    values = inverse @ rows.T @ used
    noise = float(((used - rows @ values) ** 2).sum()) / max(1, len(used) - 3)
    return values, np.sqrt(noise * np.diag(inverse))


if __name__ == "__main__":
    main()
