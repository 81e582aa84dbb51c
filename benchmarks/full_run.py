"""Minutes of a whole training run: 120 epochs of 12,936 images of 751 identities, without evaluation.

    python benchmarks/full_run.py --device cuda [--backbone swin_tiny_patch4_window7_224] [--epochs 5] [--compile]
    python benchmarks/full_run.py --device cpu [--steps 4]

`reid_tune.training.loop.train` runs as in a task, on drawn JPEGs: the image cache is built, every epoch writes the
latest checkpoint, every tenth one is kept. `--epochs` measures the first ones and projects; what the first one takes
beyond a later one (kernels chosen or compiled) counts once. `--steps` makes epochs of fewer images. Beside it stands
the time that the reference publishes, of other hardware.
"""

import statistics
import sys
import time
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

import common
import torch
from common import Row

from reid_tune.spec.experiment import Experiment
from reid_tune.training.loop import train
from reid_tune.training.reporter import Metrics

EPOCHS = 120
# Hours on one A100 with 80 GB at batch 128, from the reference's documentation.
PUBLISHED = {common.RESNET: 1.25, common.SWIN: 1.5}


@dataclass
class Watch:
    """A reporter that notes when epochs end and how fast their steps were."""

    ends: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        self.ends.append(time.perf_counter())

    def say(self, text: str) -> None:
        pass

    def step(self, step: int, loss: float) -> None:
        pass

    def report(self, metrics: Metrics) -> None:
        self.ends.append(time.perf_counter())
        self.speeds.append(metrics["images_per_second"])
        print(f"epoch {metrics['epoch']}: {self.speeds[-1]:.0f} images/s", file=sys.stderr, flush=True)

    @property
    def epochs(self) -> list[float]:
        """Seconds of each epoch, its checkpoint included."""
        return [end - begin for begin, end in zip(self.ends, self.ends[1:], strict=False)]


def main() -> None:
    given = parse()
    device = common.device_of(given)
    with common.workplace() as folder:
        experiment, images = make_spec(given, device, folder)
        print(common.machine(device), flush=True)
        watch, started = Watch(), time.perf_counter()
        train(experiment, watch, folder / "run", device=device)
        rows = table(watch, watch.ends[0] - started, experiment, images)
    model = experiment.model
    setting = ", compiled" if given.compile else ""
    common.show(
        f"{model.backbone}, {model.input_height} x {model.input_width}, batch {experiment.dataset.batch_size}, "
        f"{experiment.train.precision}{setting}; measured: {experiment.train.num_epochs} epochs of {images:,} images",
        "published, A100 (other hardware)",
        rows,
    )


def parse() -> Namespace:
    parser = common.options(__doc__)
    parser.add_argument("--backbone", choices=[common.RESNET, common.SWIN], help=f"default {common.RESNET}")
    parser.add_argument("--batch", type=int, help="a multiple of 4; default 128 on a GPU, 16 elsewhere")
    parser.add_argument("--epochs", type=int, help="to measure, 2 or more; default all on a GPU, 2 elsewhere")
    parser.add_argument("--steps", type=int, help="in an epoch, 2 or more; default all on a GPU, 4 elsewhere")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="default bf16 where it is native")
    parser.add_argument("--compile", action="store_true", help="train.compile")
    given = parser.parse_args()
    if min(given.epochs or 2, given.steps or 2) < 2:
        parser.error("--epochs and --steps are 2 or more: the first epoch stands apart")
    return given


def make_spec(given: Namespace, device: torch.device, folder: Path) -> tuple[Experiment, int]:
    """The spec, with data drawn for it, and the number of images."""
    large = device.type == "cuda" and not given.quick
    batch = given.batch or (128 if large else 8 if given.quick else 16)
    steps = given.steps or (None if large else 2 if given.quick else 4)
    images = steps * batch if steps else common.IMAGES
    crops = common.draw_crops(folder / "crops", images, min(common.IDENTITIES, images // 4))
    values = {
        "dataset.train_dataset_dir": str(crops),
        "dataset.batch_size": batch,
        "dataset.num_workers": common.cores(),
        "train.num_epochs": given.epochs or (EPOCHS if large else 2),
        "train.checkpoint_interval": 10,
        "train.precision": given.precision or ("bf16" if common.native_bf16(device) else "fp32"),
        "train.compile": given.compile,
    }
    backbone = given.backbone or (common.TINY if given.quick else common.RESNET)
    return common.spec(backbone, values, quick=given.quick), images


def table(watch: Watch, before: float, experiment: Experiment, images: int) -> list[Row]:
    """Rows of what was measured, and of a run of full length made up of it."""
    first, *later = watch.epochs
    batch, backbone = experiment.dataset.batch_size, experiment.model.backbone
    measured_steps, full_steps = max(1, round(images / batch)), round(common.IMAGES / batch)
    speed = statistics.median(watch.speeds[1:])
    checkpoint = statistics.median(
        seconds - measured_steps * batch / speed for seconds, speed in zip(later, watch.speeds[1:], strict=True)
    )
    whole = len(watch.speeds) == EPOCHS and images == common.IMAGES
    excess = first - statistics.median(later)
    projected = before + excess + EPOCHS * (full_steps * batch / speed + checkpoint)
    minutes = (before + sum(watch.epochs) if whole else projected) / 60
    hours = PUBLISHED.get(backbone)
    their_minutes, their_speed = (60 * hours, EPOCHS * common.IMAGES / (3600 * hours)) if hours else ("", "")
    wanted = "8, better 6, on an H200" if backbone == common.RESNET else ""
    how = "measured" if whole else "projected"
    return [
        Row(f"minutes of {EPOCHS} epochs of {common.IMAGES:,} images, {how}", their_minutes, minutes, "less", wanted),
        Row("images/s", their_speed, speed, "more"),
        Row("before the first epoch (cache, network), s", "", before),
        Row("first epoch beyond a later one, s", "", excess),
        Row("checkpoint and rest of an epoch, s", "", checkpoint),
    ]


if __name__ == "__main__":
    main()
