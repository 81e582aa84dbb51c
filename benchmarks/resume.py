"""Seconds from `reid-tune sweep --resume auto` to the first new trial of a sweep that has 1,000 trials.

    python benchmarks/resume.py [--trials 1000]

The log comes from a simulated search (auto and asha with five rungs, random configurations), and all of it is in a
SQLite store of MLflow. The command runs as a user gives it, on a real local Ray, and is stopped once the first new
attempt is in the log. Each part excludes the parts within it; CPU seconds are those of the main thread, which do not
depend on other jobs. What Ray needs to start, and until it asks for the first trial, has separate rows.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import common
import psutil
import torch
from common import Row
from sweep_overhead import CONSTRAINTS, EPOCHS, SPACE, simulate

from reid_tune.cli import main as command
from reid_tune.demo import draw_demo_data
from reid_tune.execution.cluster import session
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.events import StageDone, StageStarted
from reid_tune.journal.journal import Journal
from reid_tune.report.markdown import SweepPage
from reid_tune.search.asha import Rungs, rung_epochs
from reid_tune.search_space.load import SweepConfig, load_sweep
from reid_tune.sweep.resume import record_driver_start
from reid_tune.sweep.stages.preflight import run_preflight
from reid_tune.sweep.stages.search import TrialSource
from reid_tune.tracking.sender import send_all

RAY = ("Ray: start of a cluster", "Ray: Tune until it asks for a trial")
START = "interpreter, imports and the rest"
# Functions by part, each in the module that calls it.
PARTS = {
    "reading of the search-space file": ["reid_tune.search_space.load:load_sweep"],
    "reading of the log": ["reid_tune.sweep.run:read_events", "reid_tune.journal.event_log:read_events"],
    "comparison with the log's file and spec": ["reid_tune.sweep.run:load_resumable_state"],
    "preflight": ["reid_tune.sweep.run:run_preflight"],
    "check of the nodes": ["reid_tune.sweep.run:check_nodes"],
    "check of MLflow": ["reid_tune.sweep.run:connection_error"],
    "lease and state": ["reid_tune.sweep.run:_require_no_driver", "reid_tune.journal.journal:Journal.__init__"],
    "versions and fingerprint of the data": ["reid_tune.sweep.resume:collect_environment"],
    "start of MLflow's sender": ["reid_tune.tracking.sender:Sender.__init__"],
    "budget": ["reid_tune.search.budget:BudgetTracker.apply"],
    "replay of the search": ["reid_tune.sweep.stages.search:TrialSource.__init__"],
    "first suggestion": ["reid_tune.sweep.stages.search:TrialSource.next_attempt"],
    RAY[1]: ["reid_tune.sweep.driver:SweepDriver._run"],
}


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="trials of the log")
    parser.add_argument("--resume", help=argparse.SUPPRESS)  # the file of a sweep: this process is the command
    options = parser.parse_args()
    if options.resume:
        resume(Path(options.resume))
        return
    print(common.machine(torch.device("cpu")), flush=True)
    trials = 20 if options.quick else options.trials
    with common.temporary_workspace() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        events = write_log(write_sweep(trials), trials)
        command = [sys.executable, __file__, "--resume", "sweep.yaml"]
        output = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout
    seconds: dict[str, list[float]] = json.loads(output.splitlines()[-1])
    rays = [Row(name, *seconds.pop(name)) for name in RAY]
    wall, cpu = (sum(values) for values in zip(*seconds.values(), strict=True))
    rows = [Row(name, *values) for name, values in seconds.items()]
    rows.append(Row(f"all but Ray, {trials:,} trials, {events:,} events", wall, cpu, "", "5"))
    common.show("from the command to the first new trial", "seconds", [*rows, *rays], "CPU seconds")


def write_sweep(trials: int) -> SweepConfig:
    """Write a sweep of one more trial and its data into the working folder."""
    draw_demo_data(Path("data"), identities=16, images=6)
    spec = {
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16},
        "dataset": {"train_dataset_dir": "data/bounding_box_train", "batch_size": 16, "num_instances": 4},
        "train": {"num_epochs": EPOCHS, "optim": {"warmup_iters": 0, "lr_steps": [18]}},
    }
    space = {key: value for key, value in SPACE.items() if not key.startswith("dataset.") and "warmup" not in key}
    space["dataset.batch_size"], space["dataset.num_instances"] = {"choice": [8, 16]}, {"choice": [2, 4]}
    sweep = {
        "name": "long",
        "spec": "spec.yaml",
        "space": space,
        "constraints": CONSTRAINTS,
        "scheduler": {"grace_period": 1, "reduction_factor": 2},
        "budget": {"trials": trials + 1},
        "registry": {"model": "none"},
    }
    # JSON is YAML, and needs no reader.
    Path("spec.yaml").write_text(json.dumps(spec))
    Path("sweep.yaml").write_text(json.dumps(sweep))
    return load_sweep(Path("sweep.yaml"))


def write_log(sweep: SweepConfig, trials: int) -> int:
    """Write the log of a search that was killed after its last trial, send it to MLflow, and return its length."""
    checks = run_preflight(sweep, ["preflight", "search"])
    plan = checks.as_dict() | {"timing": {"start": 1.0, "epoch": 1.0}}
    budget = sweep.file.budget.model_copy(update={"trials": trials})
    settings = sweep.file.search.model_copy(update={"sampler": "random"})
    drawn = sweep.file.model_copy(update={"search": settings, "budget": budget})
    with Journal(sweep.folder) as journal:
        record_driver_start(sweep, journal)
        for event in (StageStarted(stage="preflight"), StageDone(stage="preflight", result=plan)):
            journal.emit(event)
        journal.emit(StageStarted(stage="search"))
        simulate(TrialSource(replace(sweep, file=drawn), journal, Rungs(rung_epochs(1, 2, EPOCHS))))
    return send_all(sweep.folder / EVENTS, os.environ["MLFLOW_TRACKING_URI"], SweepPage).events


class Timer:
    """Seconds and CPU seconds of the main thread in each part, without the parts within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._parts, self._since = [START], (psutil.Process().create_time(), 0.0)

    def change(self, part: str | None) -> None:
        """Enter a part, or leave the current one."""
        now = time.time(), time.thread_time()
        earlier = self.seconds.get(self._parts[-1], [0.0, 0.0])
        spent = zip(earlier, now, self._since, strict=True)
        self.seconds[self._parts[-1]] = [total + end - start for total, end, start in spent]
        self._since = now
        if part is None:
            self._parts.pop()
        else:
            self._parts.append(part)

    def time(self, part: str, name: str) -> None:
        """Replace a function `MODULE:NAME` by one that is timed as a part."""
        module, _, attribute = name.partition(":")
        owner = import_module(module)
        for step in attribute.split(".")[:-1]:
            owner = getattr(owner, step)
        function: Callable[..., Any] = getattr(owner, attribute.split(".")[-1])

        @wraps(function)
        def timed(*arguments: Any, **values: Any) -> Any:
            self.change(part)
            try:
                return function(*arguments, **values)
            finally:
                self.change(None)

        setattr(owner, attribute.split(".")[-1], timed)


def resume(path: Path) -> None:
    """Run the command until it has recorded the first attempt, and print the seconds of each part as JSON."""
    timer = Timer()
    for part, names in PARTS.items():
        for name in names:
            timer.time(part, name)
    connect, next_attempt = session._connect, TrialSource.next_attempt

    @contextmanager
    def timed_connection(*arguments: Any, **options: Any) -> Iterator[None]:
        timer.change(RAY[0])
        with connect(*arguments, **options):
            timer.change(None)
            yield

    def stop_after_attempt(source: TrialSource) -> None:
        assert next_attempt(source) is not None
        print(json.dumps(timer.seconds), file=sys.__stdout__)  # sys.stdout is a file while Tune runs
        raise KeyboardInterrupt

    session._connect, TrialSource.next_attempt = timed_connection, stop_after_attempt  # type: ignore[assignment,method-assign]
    sys.argv = ["reid-tune", "sweep", str(path), "--resume", "auto", "--until", "search"]
    command()


if __name__ == "__main__":
    main()
