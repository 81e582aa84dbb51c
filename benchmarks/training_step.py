"""Images per second in training, and the time of each stage of a step.

    python benchmarks/training_step.py [--device cuda] [--backbone swin_tiny_patch4_window7_224] [--compile]

Plain PyTorch: float32 (torch's defaults, so TF32 in a GPU's convolutions), eager, NCHW, torchvision's transforms of one
image at a time, an optimizer that steps parameter by parameter. reid-tune: bfloat16 if the device has it, channels
last, whole batches augmented on the device, a fused optimizer. Both use the same decoded images, batches and losses;
--precision fp32 removes the effect of the precision from the ratio. A constant batch has no input pipeline. The share
of its speed that training reaches is measured over whole epochs of reid-tune's loop, with the first batch, the last
reads and the checkpoint. Stages are timed in separate steps, which wait for the device after each stage.
"""

import statistics
from argparse import Namespace
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import common
import torch
from common import Row
from trainers import PlainTrainer, ReidTuneTrainer, Trainer

from reid_tune.config.experiment import Experiment


@dataclass(frozen=True)
class Plan:
    """Measurements to make.

    Attributes:
        experiment: The spec.
        device: Device of the training.
        workers: Workers of the plain DataLoader.
        steps: Timed steps of a repeat.
        warm: Steps before them, which are not timed.
        repeats: Number of repeats.
        epochs: Timed epochs of reid-tune's loop, after one that is not timed.
    """

    experiment: Experiment
    device: torch.device
    workers: int
    steps: int
    warm: int
    repeats: int
    epochs: int

    @property
    def batch(self) -> int:
        return self.experiment.dataset.batch_size


def main() -> None:
    options = parse()
    with common.temporary_workspace() as folder:
        plan = make_plan(options, folder)
        print(common.machine(plan.device), flush=True)
        rows = measure(plan, folder, compiled=options.compile, peak_tflops=options.peak_tflops)
    model, train = plan.experiment.model, plan.experiment.train
    common.show(
        f"{model.backbone}, {model.input_height} x {model.input_width}, batch {plan.batch}, "
        f"reid-tune in {train.precision}; medians of {plan.repeats} repeats of {plan.steps} step(s), taking turns",
        f"plain, {plan.workers} workers",
        rows,
    )


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--backbone", choices=[common.RESNET, common.SWIN], help=f"default {common.RESNET}")
    parser.add_argument("--batch", type=int, help="a multiple of 4; default 128 on a GPU, 16 elsewhere")
    parser.add_argument("--steps", type=int, help="in a repeat; default 40 on a GPU, 2 elsewhere")
    parser.add_argument("--repeats", type=int, help="default 5 on a GPU, 3 elsewhere")
    parser.add_argument("--epochs", type=int, help="whole epochs of the loop; default 3 on a GPU, 1 elsewhere")
    parser.add_argument("--workers", type=int, help="of the plain DataLoader; default 8 on a GPU, 0 elsewhere")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="of reid-tune; default bf16 where it is native")
    parser.add_argument("--compile", action="store_true", help="also measure reid-tune with train.compile")
    parser.add_argument("--peak-tflops", type=float, default=989, help="the GPU's in dense bf16; default an H200's 989")
    return parser.parse_args()


def make_plan(options: Namespace, folder: Path) -> Plan:
    device, quick = common.device_of(options), options.quick
    large = device.type == "cuda" and not quick
    identities = 16 if quick else common.IDENTITIES
    images = common.IMAGES if large else 4 * identities
    values = {
        "dataset.train_dataset_dir": str(common.draw_crops(folder / "crops", images, identities)),
        "dataset.batch_size": options.batch or (128 if large else 8 if quick else 16),
        "dataset.num_workers": common.cores(),
        "train.num_epochs": common.EPOCHS,
        "train.checkpoint_interval": 10,
        "train.precision": options.precision or ("bf16" if common.native_bf16(device) else "fp32"),
    }
    return Plan(
        common.spec(options.backbone or (common.TINY if quick else common.RESNET), values, quick=quick),
        device,
        workers=(8 if large else 0) if options.workers is None else options.workers,
        steps=options.steps or (40 if large else 1 if quick else 2),
        warm=10 if large else 1,
        repeats=options.repeats or (5 if large else 2 if quick else 3),
        epochs=options.epochs or (3 if large else 1),
    )


def measure(plan: Plan, folder: Path, *, compiled: bool, peak_tflops: float) -> list[Row]:
    before = allocated(plan)
    trainer = ReidTuneTrainer(plan.experiment, folder / "run", plan.device)
    peak = warm_up(trainer, plan, before)
    before = allocated(plan)
    plain = PlainTrainer(plan.experiment, trainer.run.data, plan.device, plan.workers)
    plain_peak = warm_up(plain, plan, before)
    trainers: dict[str, Trainer] = {
        "plain": plain,
        "reid-tune": trainer,
        "constant": trainer.train_on_one_batch,
    }
    if compiled:
        train = plan.experiment.train.model_copy(update={"compile": True})
        compiled_trainer = ReidTuneTrainer(
            plan.experiment.model_copy(update={"train": train}), folder / "compiled", plan.device
        )
        warm_up(compiled_trainer, plan, 0)
        trainers |= {"compiled": compiled_trainer, "compiled constant": compiled_trainer.train_on_one_batch}
    times = common.interleaved_medians(
        {name: partial(seconds_of_step, steps, plan) for name, steps in trainers.items()}, plan.repeats
    )
    speed = {name: plan.batch / value for name, value in times.items()}
    return [
        Row("images/s", speed["plain"], speed["reid-tune"], "more"),
        Row("on a constant batch, images/s", "", speed["constant"]),
        *epoch_rows(plan, folder / "epochs", times["constant"]),
        *compiled_rows(speed),
        Row("peak memory, GB", plain_peak, peak, "less"),
        *peak_rows(trainer, speed, plan, peak_tflops),
        *stage_rows(trainer, plan),
    ]


def epoch_rows(plan: Plan, folder: Path, constant: float) -> list[Row]:
    """Compare whole epochs of reid-tune's loop with as many steps on a constant batch of `constant` seconds each."""
    timer = common.EpochTimer(stop_after=plan.epochs + 1)
    common.train_timed(plan.experiment, timer, folder, plan.device)
    epoch, steps = statistics.median(timer.epochs[1:]), timer.steps_per_epoch
    return [
        Row(f"an epoch of {steps} steps with its checkpoint, s", "", epoch),
        Row(f"{steps} steps on a constant batch, s", "", float(steps * constant)),
        Row("share of the constant batch, whole epochs, %", "", float(100 * steps * constant / epoch), target="95"),
    ]


def compiled_rows(speed: dict[str, float]) -> list[Row]:
    if "compiled" not in speed:
        return [Row("compiled, images/s", speed["plain"], None)]
    constant = speed["compiled constant"]
    return [
        Row("compiled, images/s", speed["plain"], speed["compiled"], "more"),
        Row("compiled, on a constant batch, images/s", "", constant),
        Row("compiled, share of the constant batch, steps alone, %", "", 100 * speed["compiled"] / constant),
    ]


def peak_rows(trainer: ReidTuneTrainer, speed: dict[str, float], plan: Plan, peak_tflops: float) -> list[Row]:
    """Return shares of the GPU's bf16 peak; only products are counted, the same number for both trainers."""
    if plan.device.type != "cuda":
        return [Row("share of the bf16 peak, %", None, None)]
    flops_of_image = trainer.count_flops() / plan.batch
    shares = {name: 100 * value * flops_of_image / (peak_tflops * 1e12) for name, value in speed.items()}
    rows = [Row("share of the bf16 peak, %", shares["plain"], shares["reid-tune"])]
    if "compiled" in shares:
        rows.append(Row("compiled, share of the bf16 peak, %", "", shares["compiled"]))
    return [*rows, Row("GFLOP per image, forward and backward", "", flops_of_image / 1e9)]


def stage_rows(trainer: ReidTuneTrainer, plan: Plan) -> list[Row]:
    with trainer.batches(plan.warm + plan.steps * plan.repeats) as batches:
        stages = [trainer.time_stages(batch) for batch in batches][plan.warm :]
    medians = {stage: statistics.median(times[stage] for times in stages) for stage in stages[0]}
    whole = sum(medians.values())
    return [Row(f"{stage}, ms ({100 * value / whole:.0f} %)", "", float(value)) for stage, value in medians.items()]


def seconds_of_step(trainer: Trainer, plan: Plan) -> float:
    """Return the seconds of a step after the warm-up."""
    now, steps = common.clock(plan.device), trainer(plan.warm + plan.steps)
    for _ in islice(steps, plan.warm):
        pass
    started = now()
    for _ in steps:
        pass
    return (now() - started) / plan.steps


def warm_up(trainer: Trainer, plan: Plan, before: int) -> float | None:
    """Return the peak of the GPU memory allocated in the warm-up in GB, above `before` bytes; None without a GPU."""
    gpu = plan.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(plan.device)
    for _ in trainer(plan.warm):
        pass
    return (torch.cuda.max_memory_allocated(plan.device) - before) / 1e9 if gpu else None


def allocated(plan: Plan) -> int:
    return torch.cuda.memory_allocated(plan.device) if plan.device.type == "cuda" else 0


if __name__ == "__main__":
    main()
