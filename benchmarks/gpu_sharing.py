"""Concurrent trainings of a small network on one device, against one training alone.

    python benchmarks/gpu_sharing.py --device cuda [--trials 8] [--batch 64]

Each training is a separate process that trains ResNet-18 at 256x128 with `reid_tune.training.loop.train`, as trials of
a sweep with a part of a GPU do. The GPU divides its time among them (no MPS). All start their epochs together, and the
first epoch, in which kernels are chosen, does not count. Start-up is the time from the start of the first process until
the last run is ready; the image cache is built before. The device's memory is the sum of the peaks of the processes'
allocators, without the memory of CUDA itself.
"""

import multiprocessing
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import common
import torch
from common import EpochTimer, Row

from reid_tune.config.experiment import Experiment
from reid_tune.training.data_split import load_split
from reid_tune.training.image_sets import load_training_images

BARRIER_TIMEOUT = 600  # seconds that a trial waits for the others
BARRIER: Barrier | None = None  # of the concurrent trials, set in each of their processes


@dataclass(frozen=True)
class Trial:
    """Times of a trial on the monotonic clock, which all processes share, and its memory.

    Attributes:
        ready: Time when its first epoch could start, in seconds.
        began: Time when its second epoch started, in seconds.
        ended: Time when its last epoch ended, in seconds.
        images: Number of images trained on between `began` and `ended`.
        memory: Peak memory of the allocator on the device, in GB.
    """

    ready: float
    began: float
    ended: float
    images: int
    memory: float


class SynchronisedTimer(EpochTimer):
    """Timer that waits for the other trials before the first epoch and after it."""

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        self.ready = time.monotonic()
        wait()
        super().start(steps_per_epoch, first_epoch, num_epochs)

    def report_epoch(self, metrics: common.Metrics) -> None:
        if not self.history:
            wait()
            self.began = time.monotonic()
        self.ended = time.monotonic()
        super().report_epoch(metrics)


def main() -> None:
    options = parse()
    device = common.device_of(options)
    with common.temporary_workspace() as folder:
        experiment = make_spec(options, device, folder)
        print(common.machine(device), flush=True)
        load_training_images(experiment, load_split(experiment).train)  # builds the image cache
        alone, alone_start = run_trials(experiment, device, 1, options.epochs, folder / "alone")
        together, start = run_trials(experiment, device, options.trials, options.epochs, folder / "together")
    model = experiment.model
    speed = throughput(together)
    rows = [
        Row("images/s of all", throughput(alone), speed, "more"),
        Row("images/s of each", throughput(alone), speed / options.trials),
        Row("start-up, s", alone_start, start),
        Row(
            "device memory of all, GB",
            *(memory(trials) if options.device == "cuda" else None for trials in (alone, together)),
        ),
    ]
    common.show(
        f"{model.backbone}, {model.input_height} x {model.input_width}, batch {experiment.dataset.batch_size}, "
        f"{experiment.train.precision}; {options.epochs} epochs of {alone[0].images // options.epochs:,} images",
        "one alone",
        rows,
        f"{options.trials} at once",
    )


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--trials", type=int, help="number of concurrent trials; default 8 on a GPU, 2 elsewhere")
    parser.add_argument("--batch", type=int, help="a multiple of 4; default 64 on a GPU, 16 elsewhere")
    parser.add_argument("--epochs", type=int, help="timed epochs; default 3 on a GPU, 2 elsewhere")
    options = parser.parse_args()
    is_full_size = options.device == "cuda" and not options.quick
    options.trials = options.trials or (8 if is_full_size else 2)
    options.batch = options.batch or (64 if is_full_size else 8 if options.quick else 16)
    options.epochs = options.epochs or (3 if is_full_size else 1 if options.quick else 2)
    options.images = 4 * common.IDENTITIES if is_full_size else 32 if options.quick else 256
    return options


def make_spec(options: Namespace, device: torch.device, folder: Path) -> Experiment:
    crops = common.draw_crops(folder / "crops", options.images, options.images // 4)
    values = {
        "dataset.train_dataset_dir": str(crops),
        "dataset.batch_size": options.batch,
        "dataset.num_workers": max(1, common.cores() // options.trials),
        "train.num_epochs": common.EPOCHS,
        "train.checkpoint_interval": 10,
        "train.precision": "bf16" if common.native_bf16(device) else "fp32",
    }
    return common.spec(common.TINY, values, quick=options.quick)


def run_trials(
    experiment: Experiment, device: torch.device, count: int, epochs: int, folder: Path
) -> tuple[list[Trial], float]:
    """Run concurrent trials, each in a process; return them and the seconds of their start-up."""
    context = multiprocessing.get_context("spawn")
    started = time.monotonic()
    with ProcessPoolExecutor(count, context, initializer=set_barrier, initargs=(context.Barrier(count),)) as pool:
        folders = [folder / str(number) for number in range(count)]
        pending = [pool.submit(run_trial, experiment, device, path, epochs, count) for path in folders]
        trials = [future.result() for future in pending]
    return trials, max(trial.ready for trial in trials) - started


def set_barrier(barrier: Barrier) -> None:
    """Set the barrier of this process's trial."""
    global BARRIER
    BARRIER = barrier


def wait() -> None:
    assert BARRIER is not None
    BARRIER.wait(BARRIER_TIMEOUT)


def run_trial(experiment: Experiment, device: torch.device, folder: Path, epochs: int, count: int) -> Trial:
    """Train for some epochs after the first one, with a share of the cores."""
    torch.set_num_threads(max(1, common.cores() // count))
    timer = SynchronisedTimer(stop_after=epochs + 1)
    try:
        common.train_timed(experiment, timer, folder, device)
    except Exception:
        assert BARRIER is not None
        BARRIER.abort()  # The other trials then fail instead of waiting.
        raise
    images = epochs * timer.steps_per_epoch * experiment.dataset.batch_size
    memory = torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0
    return Trial(timer.ready, timer.began, timer.ended, images, memory)


def throughput(trials: Sequence[Trial]) -> float:
    """Return the images per second of all trials, from the first start to the last end."""
    seconds = max(trial.ended for trial in trials) - min(trial.began for trial in trials)
    return sum(trial.images for trial in trials) / seconds


def memory(trials: Sequence[Trial]) -> float:
    return sum(trial.memory for trial in trials)


if __name__ == "__main__":
    main()
