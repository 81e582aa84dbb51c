"""Trainings of a small network that share one device at once, against one alone.

    python benchmarks/gpu_sharing.py --device cuda [--trials 8] [--batch 64]

Each is a process of its own that trains ResNet-18 at 256x128 through `reid_tune.training.loop.train`, as trials of a
sweep with a part of a GPU do; the GPU divides its time among them (no MPS). All begin their epochs together, and the
first epoch, in which kernels are chosen, does not count. Start-up is the time from the first process to the last run
that is ready, the image cache built before. The device's memory is what the allocators of all processes hold at most,
without what CUDA itself takes.
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
from common import Row, Watch

from reid_tune.config.experiment import Experiment
from reid_tune.training.data_split import load_split
from reid_tune.training.image_sets import load_training_images

PATIENCE = 600  # seconds that a trial waits for the others
BARRIER: Barrier | None = None  # of the trials that run at once, set in each of their processes


@dataclass(frozen=True)
class Trial:
    """What a trial tells: its clock, which all processes share, and the GB that it took of the device.

    Attributes:
        ready: Seconds, when its first epoch could begin.
        began: Seconds, when its second epoch began.
        ended: Seconds, when its last epoch ended.
    """

    ready: float
    began: float
    ended: float
    images: int
    memory: float


class Together(Watch):
    """Waits for the other trials before the first epoch, and after it."""

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
    with common.workplace() as folder:
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
    parser = common.options(__doc__)
    parser.add_argument("--trials", type=int, help="at once; default 8 on a GPU, 2 elsewhere")
    parser.add_argument("--batch", type=int, help="a multiple of 4; default 64 on a GPU, 16 elsewhere")
    parser.add_argument("--epochs", type=int, help="that count; default 3 on a GPU, 2 elsewhere")
    options = parser.parse_args()
    large = options.device == "cuda" and not options.quick
    options.trials = options.trials or (8 if large else 2)
    options.batch = options.batch or (64 if large else 8 if options.quick else 16)
    options.epochs = options.epochs or (3 if large else 1 if options.quick else 2)
    options.images = 4 * common.IDENTITIES if large else 32 if options.quick else 256
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
    """Run trials at once, each in a process, and the seconds of their start-up."""
    context = multiprocessing.get_context("spawn")
    started = time.monotonic()
    with ProcessPoolExecutor(count, context, initializer=join, initargs=(context.Barrier(count),)) as pool:
        places = [folder / str(number) for number in range(count)]
        pending = [pool.submit(trial, experiment, device, place, epochs, count) for place in places]
        trials = [future.result() for future in pending]
    return trials, max(run.ready for run in trials) - started


def join(barrier: Barrier) -> None:
    """Keep the barrier of this process's trial."""
    global BARRIER
    BARRIER = barrier


def wait() -> None:
    assert BARRIER is not None
    BARRIER.wait(PATIENCE)


def trial(experiment: Experiment, device: torch.device, folder: Path, epochs: int, count: int) -> Trial:
    """Train for some epochs after the first one, with a share of the cores."""
    torch.set_num_threads(max(1, common.cores() // count))
    watch = Together(stop_after=epochs + 1)
    try:
        common.watched(experiment, watch, folder, device)
    except Exception:
        assert BARRIER is not None
        BARRIER.abort()  # The others fail too, where they would wait.
        raise
    images = epochs * watch.steps_per_epoch * experiment.dataset.batch_size
    memory = torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0
    return Trial(watch.ready, watch.began, watch.ended, images, memory)


def throughput(trials: Sequence[Trial]) -> float:
    """Images per second of all trials, from the first one's begin to the last one's end."""
    seconds = max(trial.ended for trial in trials) - min(trial.began for trial in trials)
    return sum(trial.images for trial in trials) / seconds


def memory(trials: Sequence[Trial]) -> float:
    return sum(trial.memory for trial in trials)


if __name__ == "__main__":
    main()
