"""Minutes of a whole training: 120 epochs of 12,936 images of 751 identities, with a validation every 10 epochs.

    python benchmarks/full_run.py --device cuda [--backbone swin_tiny_patch4_window7_224] [--epochs 6] [--compile]
    python benchmarks/full_run.py --device cpu [--steps 4]

`reid_tune.training.loop.train` runs as in a task, on drawn JPEGs: the image cache is built, every epoch writes the
latest checkpoint, and every tenth one is kept. The validation has the size of a validation split, a fifth of the images
of 150 identities. `--epochs` measures the first epochs, every second one with a validation, and projects the rest. The
extra time of the first epoch and of the first validation, in which kernels are chosen or compiled, counts once.
`--steps` shortens the epochs. The published time is that of TAO's documentation, on other hardware.

The cost of a sweep of 64 such trials with ASHA (grace period auto, reduction factor 3) follows from these figures, if
one in three trials survives each rung and no GPU is idle. Trials also validate at the rungs.
"""

import math
import statistics
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import common
import torch
from common import EPOCHS, EpochTimer, Row

from reid_tune.config.experiment import Experiment
from reid_tune.config.train import Optim
from reid_tune.search.asha import rung_epochs

VALIDATION_INTERVAL = 10  # epochs
VALIDATION_IMAGES, VALIDATION_IDENTITIES = common.IMAGES // 5, 150
TRIALS, FACTOR = 64, 3
# Hours on one A100 with 80 GB at batch 128, from TAO's documentation.
PUBLISHED = {common.RESNET: 1.25, common.SWIN: 1.5}


@dataclass(frozen=True)
class Plan:
    """Training to measure.

    Attributes:
        experiment: The spec, with drawn data.
        images: Number of training images.
        validation_images: Number of images to validate on.
        epochs: Number of epochs to measure; None for all.
    """

    experiment: Experiment
    images: int
    validation_images: int
    epochs: int | None

    @property
    def is_whole(self) -> bool:
        """Whether a run of full size is measured, not projected."""
        return self.epochs is None and (self.images, self.validation_images) == (common.IMAGES, VALIDATION_IMAGES)


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a run of full size.

    Attributes:
        start: Seconds before the first epoch, with the extra time of the first epoch and of the first validation.
        epoch: Seconds of an epoch with its checkpoint, without validation.
        validation: Seconds of a validation.
    """

    start: float
    epoch: float
    validation: float

    def run(self, epochs: int, validations: int) -> float:
        """Return the seconds of a run."""
        return self.start + epochs * self.epoch + validations * self.validation


def main() -> None:
    options = parse()
    device = common.device_of(options)
    with common.temporary_workspace() as folder:
        plan = make_plan(options, device, folder)
        print(common.machine(device), flush=True)
        timer, started = EpochTimer(plan.epochs), time.perf_counter()
        common.train_timed(plan.experiment, timer, folder / "run", device)
        rows = table(timer, timer.ends[0] - started, plan)
    model, train = plan.experiment.model, plan.experiment.train
    setting = ", compiled" if options.compile else ""
    common.show(
        f"{model.backbone}, {model.input_height} x {model.input_width}, batch {plan.experiment.dataset.batch_size}, "
        f"{train.precision}{setting}; measured: {len(timer.history)} epochs of {plan.images:,} images, "
        f"validation of {plan.validation_images:,} images",
        "published, A100 (other hardware)",
        rows,
    )


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--backbone", choices=[common.RESNET, common.SWIN], help=f"default {common.RESNET}")
    parser.add_argument("--batch", type=int, help="a multiple of 4; default 128 on a GPU, 16 elsewhere")
    parser.add_argument("--epochs", type=int, help="to measure, 4 or more; default all on a GPU, 4 elsewhere")
    parser.add_argument("--steps", type=int, help="in an epoch, 2 or more; default all on a GPU, 4 elsewhere")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="default bf16 where it is native")
    parser.add_argument("--compile", action="store_true", help="train.compile")
    options = parser.parse_args()
    if (options.epochs or 4) < 4 or (options.steps or 2) < 2:
        parser.error("--epochs is 4 or more and --steps 2 or more, as the first epoch and validation count separately")
    return options


def make_plan(options: Namespace, device: torch.device, folder: Path) -> Plan:
    is_full_size = device.type == "cuda" and not options.quick
    batch = options.batch or (128 if is_full_size else 8 if options.quick else 16)
    steps = options.steps or (None if is_full_size else 2 if options.quick else 4)
    images = steps * batch if steps else common.IMAGES
    validation_images = VALIDATION_IMAGES if is_full_size else 32 if options.quick else 128
    epochs = options.epochs or (None if is_full_size else 4)
    crops = common.draw_crops(folder / "crops", images, min(common.IDENTITIES, images // 4))
    values = {
        "dataset.train_dataset_dir": str(crops),
        "dataset.validation": str(draw_validation(folder / "validation", validation_images)),
        "dataset.batch_size": batch,
        "dataset.num_workers": common.cores(),
        "train.num_epochs": EPOCHS,
        "train.validation_interval": VALIDATION_INTERVAL if epochs is None else 2,
        "train.checkpoint_interval": 10,
        "train.precision": options.precision or ("bf16" if common.native_bf16(device) else "fp32"),
        "train.compile": options.compile,
    }
    backbone = options.backbone or (common.TINY if options.quick else common.RESNET)
    return Plan(common.spec(backbone, values, quick=options.quick), images, validation_images, epochs)


def draw_validation(folder: Path, images: int) -> Path:
    """Draw queries, about a fifth of the images, and a gallery of the same identities."""
    folder.mkdir()
    identities = min(VALIDATION_IDENTITIES, images // 16)
    queries = min(images // 5, 3 * identities)
    common.draw_crops(folder / "query", queries, identities)
    common.draw_crops(folder / "bounding_box_test", images - queries, identities)
    return folder


def table(timer: EpochTimer, before: float, plan: Plan) -> list[Row]:
    """Return the rows of the measured figures, of a run of full length and of a sweep."""
    costs, speed = costs_of(timer, before, plan), statistics.median(timer.speeds[1:])
    longest = costs.run(EPOCHS, EPOCHS // VALIDATION_INTERVAL)
    seconds = before + sum(timer.epochs) if plan.is_whole else longest
    backbone = plan.experiment.model.backbone
    hours = PUBLISHED.get(backbone)
    published_minutes, published_speed = (60 * hours, EPOCHS * common.IMAGES / (3600 * hours)) if hours else ("", "")
    target = "8, better 6, on an H200" if backbone == common.RESNET else ""
    origin = "measured" if plan.is_whole else "projected"
    sweep = sweep_hours(costs, plan.experiment.train.optim)
    return [
        Row(
            f"minutes of {EPOCHS} epochs of {common.IMAGES:,} images, {origin}",
            published_minutes,
            seconds / 60,
            "less",
            target,
        ),
        Row("images/s", published_speed, speed, "more"),
        Row("start, with the extra time of the first epoch, s", "", costs.start),
        Row("an epoch with its checkpoint, s", "", costs.epoch),
        Row(f"a validation of {VALIDATION_IMAGES:,} images, s", "", costs.validation),
        Row(f"a sweep of {TRIALS} such trials with ASHA, GPU-hours, projected", "", sweep),
        *(
            Row(f"the same, hours on {gpus} GPU{'s' * (gpus > 1)}", "", max(sweep / gpus, longest / 3600))
            for gpus in (1, 8)
        ),
    ]


def costs_of(timer: EpochTimer, before: float, plan: Plan) -> Costs:
    """Return the costs of a run, scaled from the measured images to full size."""
    batch = plan.experiment.dataset.batch_size
    seconds, steps = timer.epochs, timer.steps_per_epoch
    # Seconds of an epoch in addition to its steps, without and with a validation.
    extra_seconds: dict[bool, list[float]] = {True: [], False: []}
    for epoch, speed, metrics in zip(seconds, timer.speeds, timer.history, strict=True):
        extra_seconds["mAP" in metrics].append(epoch - steps * batch / speed)
    without_validation, with_validation = (
        statistics.median(extra_seconds[False][1:]),
        statistics.median(extra_seconds[True][1:]),
    )
    speed = statistics.median(timer.speeds[1:])
    first = seconds[0] - (steps * batch / speed + without_validation) + extra_seconds[True][0] - with_validation
    full_steps = round(common.IMAGES / batch)
    return Costs(
        start=before + first,
        epoch=full_steps * batch / speed + without_validation,
        validation=(with_validation - without_validation) * VALIDATION_IMAGES / plan.validation_images,
    )


def sweep_hours(costs: Costs, optim: Optim) -> float:
    """Return the GPU-hours of the trials of a sweep, if one in FACTOR survives each rung."""
    warmup = optim.warmup_epochs if optim.warmup_method == "cosine" else optim.warmup_iters
    levels = rung_epochs(warmup + math.ceil(EPOCHS / 10), FACTOR, EPOCHS)
    validation_epochs = {*range(VALIDATION_INTERVAL, EPOCHS + 1, VALIDATION_INTERVAL), *levels}
    seconds, survivors = 0.0, 1.0
    for last in (*levels, EPOCHS):
        stopped = survivors if last == EPOCHS else survivors * (1 - 1 / FACTOR)
        seconds += stopped * costs.run(last, sum(epoch <= last for epoch in validation_epochs))
        survivors -= stopped
    return TRIALS * seconds / 3600


if __name__ == "__main__":
    main()
