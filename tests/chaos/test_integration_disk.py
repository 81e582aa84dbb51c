"""Sweeps whose disks fill or become read-only, on file systems of 64 MB that only the test sees."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.journal.stages import STAGES

from ..helpers.mounts import fill, mount_namespace, read_only, tmpfs
from .conftest import MakeSweep
from .points import SHORT
from .sweeps import ChaosSweep, wait_for_suspension
from .table import Tried

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

Disturbance = Callable[[Path], AbstractContextManager[None]]

Case = tuple[str, Disturbance, str]  # file system, what happens to it, and the event after which it does, or the start

AT_START: list[Case] = [("storage", fill, ""), ("storage", read_only, ""), ("temporary files", fill, "")]
# A sweep can do without space for decoded images, and is complete after this.
SHORT_CASES: list[Case] = [
    *AT_START,
    ("storage", fill, "attempt-trials/0000"),
    ("storage", read_only, "stage_started-export"),
    ("image cache", fill, ""),
]


def _cases() -> list[list[Case]]:
    """Return what happens to one sweep after the other."""
    if SHORT:
        return [SHORT_CASES]
    storage = [[("storage", how, f"stage_started-{stage}") for stage in STAGES] for how in (fill, read_only)]
    others = [
        [(folder, how, event)]
        for folder in ("temporary files", "image cache", "MLflow's store")
        for how in (fill, read_only)
        for event in ("attempt-trials/0000", "stage_started-refit")
        if (folder, how) != ("temporary files", read_only)  # where Ray's sockets are
    ]
    return [SHORT_CASES, *storage, *others]


@pytest.fixture
def sweep(make_sweep: MakeSweep) -> Iterator[ChaosSweep]:
    """A sweep whose storage and whose other folders are each a file system of 64 MB."""
    with mount_namespace():
        made = make_sweep()
        made.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{made.folder}/store/mlflow.db"
        for folder in _folders(made).values():
            folder.mkdir(exist_ok=True)
            tmpfs(folder)
        yield made
        made.kill_all()


def _folders(sweep: ChaosSweep) -> dict[str, Path]:
    names = {"storage": "runs", "image cache": "cache", "MLflow's store": "store"}
    return {key: sweep.folder / name for key, name in names.items()} | {"temporary files": sweep.temporary}


@pytest.mark.parametrize("cases", _cases(), ids=lambda cases: " ".join(map(str, cases[-1][::2])))
def test_full_and_read_only_disks_end_a_sweep_with_one_sentence_and_lose_nothing(
    sweep: ChaosSweep, calm: dict[str, Any], tried: Tried, cases: Sequence[Case]
) -> None:
    with tried(*(f"{disturbance.__name__}: {folder}" for folder, disturbance, _ in cases)):
        for folder, disturbance, event in cases:
            _disturb(sweep, folder, disturbance, event)
        sweep.finish()
        sweep.require_as(calm)


def test_a_training_whose_disk_fills_at_a_checkpoint_continues_when_it_has_space(
    sweep: ChaosSweep, tried: Tried
) -> None:
    results = sweep.folder / "runs"
    command = ["train", "-e", "spec.yaml", f"train.results_dir={results}"]
    point = "driver before reid_tune.training.checkpoint_writer:CheckpointWriter._write SIGSTOP"
    with tried("fill: results of train"):
        with sweep.start(points=[point], command=command) as training:
            wait_for_suspension(sweep, training, point)
            with fill(results):
                training.send_signal(signal.SIGCONT)
                _require_end(sweep, "train", sweep.wait_for_end(training), fill)
                assert training.returncode == 3
        with sweep.start(command=command) as training:
            assert sweep.wait_for_end(training) == 0, sweep.stderr
        assert (results / LATEST).exists()


def _disturb(sweep: ChaosSweep, name: str, disturbance: Disturbance, event: str) -> None:
    """Start or continue the sweep, which ends with one sentence, or in order where it can do without the disk."""
    case, folder = f"{disturbance.__name__} {name} {event}", _folders(sweep)[name]
    point = f"driver after reid_tune.journal.event_log:EventLog.append {event} SIGSTOP"
    if not event:
        with disturbance(folder), sweep.start() as driver:
            _require_end(sweep, case, sweep.wait_for_end(driver), disturbance)
        return
    with sweep.start(points=[point]) as driver:
        wait_for_suspension(sweep, driver, point)
        with disturbance(folder):
            driver.send_signal(signal.SIGCONT)
            _require_end(sweep, case, sweep.wait_for_end(driver), disturbance)


def _require_end(sweep: ChaosSweep, case: str, status: int, disturbance: Disturbance) -> None:
    lines = [line for line in sweep.stderr.splitlines() if line.startswith("reid-tune: ")]
    assert (status, len(lines)) in {(0, 0), (2, 1), (3, 1)} and "Traceback" not in sweep.stderr, (
        f"{case}: status {status}: {sweep.stderr}"
    )
    if disturbance is fill:  # On a disk that is read-only nothing can be removed.
        sweep.require_nothing_left()
