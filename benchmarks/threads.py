"""Cost of waiting threads: CPU and wall seconds of a training, by how long OpenMP's threads spin before they sleep.

    python benchmarks/threads.py [--threads 2] [--epochs 3]

ResNet-18 is trained on the CPU with several threads of GNU OpenMP, alone and next to one busy process for each core.
`GOMP_SPINCOUNT` is 300,000, the library's default if neither it nor OMP_WAIT_POLICY is set, and 1,000, which reid-tune
sets when it is imported. Each training is a process that has the variable from its start; its first epoch does not
count. Run the script on an idle machine with at least as many cores as threads: with more threads than cores the
library shortens the spinning itself.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from argparse import SUPPRESS, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import common
import torch
from common import EpochTimer, Row

from reid_tune.config.experiment import Experiment

DEFAULT, SHORT = "300000", "1000"
MAX_BUSY_SECONDS = 1800  # after which a busy process ends by itself
CPU = torch.device("cpu")


def main() -> None:
    options = parse()
    if options.folder:
        print(json.dumps(train(options)))
        return
    with common.temporary_workspace() as options.folder:
        images = 16 if options.quick else 1024
        common.draw_crops(options.folder / "crops", images, images // 4)
        print(common.machine(CPU), flush=True)
        rows = [*measure(options, 0), *measure(options, 1 if options.quick else common.cores())]
        experiment = make_spec(options)
    model = experiment.model
    common.show(
        f"{model.backbone}, {model.input_height} x {model.input_width}, batch {experiment.dataset.batch_size}, "
        f"{experiment.train.precision}, {options.threads} threads; {options.epochs} epochs of {images:,} images, "
        f"medians of {options.repeats}, taking turns",
        f"spin count {DEFAULT} (default)",
        rows,
        f"spin count {SHORT}",
    )


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.set_defaults(device="cpu")
    parser.add_argument("--threads", type=int, help="threads of OpenMP; default 2")
    parser.add_argument("--epochs", type=int, help="timed epochs; default 3")
    parser.add_argument("--repeats", type=int, help="default 3")
    parser.add_argument("--folder", type=Path, help=SUPPRESS)  # of a single training in this process
    options = parser.parse_args()
    if options.device != "cpu":
        parser.error("this benchmark measures the threads of a CPU: omit --device")
    options.threads = options.threads or (1 if options.quick else 2)
    options.epochs = options.epochs or (1 if options.quick else 3)
    options.repeats = options.repeats or (1 if options.quick else 3)
    return options


def make_spec(options: Namespace) -> Experiment:
    values = {
        "model.input_height": 64,
        "model.input_width": 32,
        "dataset.train_dataset_dir": str(options.folder / "crops"),
        "dataset.batch_size": 8 if options.quick else 32,
        "train.num_epochs": common.EPOCHS,
        "train.checkpoint_interval": 10,
    }
    return common.spec(common.TINY, values)


def train(options: Namespace) -> tuple[float, float]:
    """Return the wall and CPU seconds of the timed epochs, of all threads of this process."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        timer = EpochTimer(stop_after=options.epochs + 1)
        common.train_timed(make_spec(options), timer, Path(folder), CPU)
    return timer.ends[-1] - timer.ends[1], timer.cpu_ends[-1] - timer.cpu_ends[1]


def measure(options: Namespace, busy_processes: int) -> list[Row]:
    """Return the rows of both spin counts, next to a number of busy processes."""
    with busy(busy_processes):
        trainings = {spins: partial(seconds, options, spins) for spins in (DEFAULT, SHORT)}
        medians = common.interleaved_medians(trainings, options.repeats)
    load = f"next to {busy_processes} busy process{'es' if busy_processes > 1 else ''}" if busy_processes else "alone"
    return [
        Row(f"{kind} seconds, {load}", float(medians[DEFAULT][i]), float(medians[SHORT][i]), "less")
        for i, kind in enumerate(("wall", "CPU"))
    ]


def seconds(options: Namespace, spins: str) -> tuple[float, float]:
    """Return the wall and CPU seconds of a training in a process with a spin count."""
    environment = os.environ | {"GOMP_SPINCOUNT": spins, "OMP_NUM_THREADS": str(options.threads)}
    environment.pop("OMP_WAIT_POLICY", None)
    options = ["--folder", options.folder, "--epochs", options.epochs, *["--quick"] * options.quick]
    command = [sys.executable, __file__, *map(str, options)]
    wall, cpu = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    return wall, cpu


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep processes busy during the block."""
    processes = [multiprocessing.Process(target=compute, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def compute() -> None:
    end = time.monotonic() + MAX_BUSY_SECONDS
    while time.monotonic() < end:
        pass


if __name__ == "__main__":
    main()
