"""A long sweep whose use of memory, descriptors, threads and disk, and whose time per trial, stay flat.

    make soak                                # 1,000 trials or 30 minutes, whichever comes first
    REID_TUNE_SOAK_MINUTES=10 make soak

Trials of one epoch run through the command line on a local Ray, with MLflow in SQLite. The slope of each quantity is
that of least squares over the second half of the time: caches fill in the first. A quantity is not flat if the lower
end of the slope's 95 % interval is above its limit; the exit status is then 1. Where the second half has fewer than 100
trials, the limit is on what has grown in it. SIGTERM and Ctrl-C end the sweep within 15 seconds.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import yaml
from rich.table import Table

from reid_tune.demo import draw_demo_data
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import RunEnded
from reid_tune.tables import print_table

TRIALS, MINUTES, SECONDS_BETWEEN_SAMPLES = 1000, 30.0, 5.0
NAME = "soak"
MB = 1e6
SPEC = {
    "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16},
    "dataset": {"train_dataset_dir": "data/bounding_box_train", "batch_size": 16, "num_instances": 4},
    "train": {"num_epochs": 1, "optim": {"warmup_iters": 0, "lr_steps": [1]}},
}
SWEEP = {
    "name": NAME,
    "spec": "spec.yaml",
    "space": {
        "train.optim.base_lr": {"loguniform": [1e-4, 1e-2]},
        "train.optim.triplet_loss_margin": {"uniform": [0.1, 0.6]},
    },
    "scheduler": {"name": "none"},
    "budget": {"trials": TRIALS},
    "registry": {"model": "none"},
}
DRIVER, RAYLET, GCS = "driver", "raylet", "gcs_server"
# Largest slope in 100 trials of each quantity, and what may grow by so much.
LIMITS = {
    f"memory of the {DRIVER}, MB": (10.0, "state, sampler and Ray Tune keep each trial: 100 kB"),
    f"memory of the {RAYLET}, MB": (2.0, "allocator"),
    f"memory of the {GCS}, MB": (5.0, "Ray's register keeps ended actors, jobs and events of tasks"),
    f"descriptors of the {DRIVER}": (1.0, "none remains open"),
    f"descriptors of the {RAYLET}": (1.0, "none remains open"),
    f"descriptors of the {GCS}": (1.0, "none remains open"),
    f"threads of the {DRIVER}": (1.0, "none remains"),
    f"threads of the {RAYLET}": (1.0, "none remains"),
    f"threads of the {GCS}": (1.0, "none remains"),
    "session folder, MB": (10.0, "Ray's logs of the processes of each trial: 100 kB"),
    "files of trials, MB": (5.0, "record, log and curve of each trial, without checkpoints: 50 kB"),
    "MLflow's store, MB": (5.0, "parameters, metrics and tags of each trial: 50 kB"),
    "log of a trial, kB": (0.05, "all trials have the same events"),
    "seconds of a trial": (0.1, "the sampler learns from all trials"),
}


@dataclass
class Series:
    """Values of a quantity, each with the number of ended trials at its time."""

    trials: list[float]
    values: list[float]

    def slope(self) -> tuple[float, float, float]:
        """Return the slope per 100 trials over the second half, half of its 95 % interval, and that half's hundreds."""
        half = len(self.values) // 2
        trials, values = (np.array(column[half:]) / scale for column, scale in ((self.trials, 100), (self.values, 1)))
        centred = trials - trials.mean()
        spread = float(centred @ centred)
        if len(values) < 4 or not spread:
            raise SystemExit(f"{len(values)} samples are too few for a slope: give the run more minutes.")
        slope = float(centred @ values) / spread
        residuals = values - values.mean() - slope * centred
        deviation = 1.96 * float(np.sqrt(residuals @ residuals / (len(values) - 2) / spread))
        return slope, deviation, float(np.ptp(trials))


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # after the sweep and the temporary files
    minutes = float(os.environ.get("REID_TUNE_SOAK_MINUTES", MINUTES))
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        draw_demo_data(folder / "data", identities=16, images=6)
        (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
        (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
        series = sample_sweep(folder, time.monotonic() + 60 * minutes)
    show(series)


def sample_sweep(folder: Path, end: float) -> dict[str, Series]:
    """Run the sweep until all trials or the time `end` of the monotonic clock, and return all series."""
    (folder / "t").mkdir()
    environment = {"TMPDIR": f"{folder}/t", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [sys.executable, "-m", "reid_tune", "sweep", "sweep.yaml", "--until", "search"]
    series: dict[str, Series] = {}
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            while process.poll() is None:
                if time.monotonic() > end:
                    process.send_signal(signal.SIGTERM)
                    process.wait(timeout=120)
                    break
                sample(folder, process.pid, series)
                time.sleep(SECONDS_BETWEEN_SAMPLES)
        finally:
            stop(process)
    if process.returncode not in (0, 130):
        raise SystemExit(f"{(folder / 'output.txt').read_text()}the sweep ended with status {process.returncode}.")
    left = sorted(path.name for path in (folder / "t").glob("reid-tune*"))
    if left:
        raise SystemExit(f"the sweep has left {', '.join(left)} in its folder for temporary files.")
    return series | trial_series(folder / "runs" / NAME / EVENTS)


def stop(process: "subprocess.Popen[bytes]", seconds: float = 12.0) -> None:
    """End the sweep if it runs: in order within some seconds, or by force, with the processes that it has started."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    for member in (process, *family):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def sample(folder: Path, driver: int, series: dict[str, Series]) -> None:
    """Add a sample of each quantity, once a trial has ended."""
    storage = folder / "runs" / NAME
    ended = sum(isinstance(event, RunEnded) for event in read_events(storage / EVENTS))
    if not ended:
        return
    values: dict[str, float] = {
        "session folder, MB": size(folder / "t") / MB,
        "files of trials, MB": size(storage / "trials") / MB,
        "MLflow's store, MB": (folder / "mlflow.db").stat().st_size / MB,
    }
    try:
        main_process = psutil.Process(driver)
        processes = {child.name(): child for child in main_process.children()} | {DRIVER: main_process}
        for name in (DRIVER, RAYLET, GCS):
            values[f"memory of the {name}, MB"] = processes[name].memory_info().rss / MB
            values[f"descriptors of the {name}"] = processes[name].num_fds()
            values[f"threads of the {name}"] = processes[name].num_threads()
    except (KeyError, psutil.NoSuchProcess):  # Ray is ending
        return
    for name, value in values.items():
        column = series.setdefault(name, Series([], []))
        column.trials.append(ended)
        column.values.append(value)


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder that others change."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


def trial_series(log: Path) -> dict[str, Series]:
    """Return the size in the log and the time of each trial, both from the end of the trial before."""
    lines = log.read_bytes().splitlines(keepends=True)
    positions = np.cumsum([len(line) for line in lines])
    ends = [
        (event.time, position)
        for event, position in zip(read_events(log), positions, strict=True)
        if isinstance(event, RunEnded)
    ]
    times, sizes = np.diff(np.array(ends, dtype=float), axis=0).T
    numbers = [float(number) for number in range(1, len(ends))]
    return {
        "log of a trial, kB": Series(numbers, list(sizes / 1e3)),
        "seconds of a trial": Series(numbers, list(times)),
    }


def show(series: dict[str, Series]) -> None:
    """Print all slopes, and exit with status 1 if one is not flat."""
    print(f"{max(series['seconds of a trial'].trials) + 1:.0f} trials; slopes per 100 trials over the second half")
    table = Table("", "first", "last", "slope", "limit", "what may grow")
    growing: list[str] = []
    for name, (limit, reason) in LIMITS.items():
        slope, deviation, hundreds = series[name].slope()
        first, last = (mean(part) for part in (series[name].values[:5], series[name].values[-5:]))
        table.add_row(name, f"{first:.2f}", f"{last:.2f}", f"{slope:+.3f} ± {deviation:.3f}", f"{limit:g}", reason)
        if (slope - deviation) * min(1.0, hundreds) > limit:
            growing.append(name)
    print_table(table)
    if growing:
        raise SystemExit(f"not flat: {'; '.join(growing)}.")


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


if __name__ == "__main__":
    main()
