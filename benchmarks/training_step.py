"""Images per second in training, and where the time of a step goes.

    python benchmarks/training_step.py [--device cuda] [--backbone swin_tiny_patch4_window7_224] [--compile]

The obvious way: float32 (torch's defaults, so TF32 in a GPU's convolutions), eager, NCHW, torchvision's transforms of
one image at a time, an optimizer that steps parameter by parameter. Ours: bfloat16 where the device has it, channels
last, whole batches augmented on the device, a fused optimizer. Both have the same decoded images, batches and losses;
--precision fp32 takes the precision out of the ratio. A constant batch has no input pipeline: what share of its speed
training keeps is measured over whole epochs of the product's loop, edges included (the first batch, the last reads, the
checkpoint). Stages are timed in steps of their own, in which the device is waited for after each stage.
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
from ways import Obvious, Ours, Way

from reid_tune.config.experiment import Experiment


@dataclass(frozen=True)
class Plan:
    """What is measured, where and how often; `warm` steps of each repeat do not count.

    `epochs` are whole epochs of the product's loop, to which the first one is added and does not count.
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
    given = parse()
    with common.workplace() as folder:
        plan = make_plan(given, folder)
        print(common.machine(plan.device), flush=True)
        rows = measure(plan, folder, compiled=given.compile, peak_tflops=given.peak_tflops)
    model, train = plan.experiment.model, plan.experiment.train
    common.show(
        f"{model.backbone}, {model.input_height} x {model.input_width}, batch {plan.batch}, ours in {train.precision}; "
        f"medians of {plan.repeats} repeats of {plan.steps} step(s), taking turns",
        f"obvious, {plan.workers} workers",
        rows,
    )


def parse() -> Namespace:
    parser = common.options(__doc__)
    parser.add_argument("--backbone", choices=[common.RESNET, common.SWIN], help=f"default {common.RESNET}")
    parser.add_argument("--batch", type=int, help="a multiple of 4; default 128 on a GPU, 16 elsewhere")
    parser.add_argument("--steps", type=int, help="in a repeat; default 40 on a GPU, 2 elsewhere")
    parser.add_argument("--repeats", type=int, help="default 5 on a GPU, 3 elsewhere")
    parser.add_argument("--epochs", type=int, help="whole epochs of the loop; default 3 on a GPU, 1 elsewhere")
    parser.add_argument("--workers", type=int, help="of the obvious way's loader; default 8 on a GPU, 0 elsewhere")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="ours; default bf16 where it is native")
    parser.add_argument("--compile", action="store_true", help="measure ours compiled too")
    parser.add_argument("--peak-tflops", type=float, default=989, help="the GPU's in dense bf16; default an H200's 989")
    return parser.parse_args()


def make_plan(given: Namespace, folder: Path) -> Plan:
    device, quick = common.device_of(given), given.quick
    large = device.type == "cuda" and not quick
    identities = 16 if quick else common.IDENTITIES
    images = common.IMAGES if large else 4 * identities
    values = {
        "dataset.train_dataset_dir": str(common.draw_crops(folder / "crops", images, identities)),
        "dataset.batch_size": given.batch or (128 if large else 8 if quick else 16),
        "dataset.num_workers": common.cores(),
        "train.num_epochs": common.EPOCHS,
        "train.checkpoint_interval": 10,
        "train.precision": given.precision or ("bf16" if common.native_bf16(device) else "fp32"),
    }
    return Plan(
        common.spec(given.backbone or (common.TINY if quick else common.RESNET), values, quick=quick),
        device,
        workers=(8 if large else 0) if given.workers is None else given.workers,
        steps=given.steps or (40 if large else 1 if quick else 2),
        warm=10 if large else 1,
        repeats=given.repeats or (5 if large else 2 if quick else 3),
        epochs=given.epochs or (3 if large else 1),
    )


def measure(plan: Plan, folder: Path, *, compiled: bool, peak_tflops: float) -> list[Row]:
    before = allocated(plan)
    ours = Ours(plan.experiment, folder / "ours", plan.device)
    our_peak = warm_up(ours, plan, before)
    before = allocated(plan)
    obvious = Obvious(plan.experiment, ours.run.data, plan.device, plan.workers)
    obvious_peak = warm_up(obvious, plan, before)
    ways: dict[str, Way] = {"obvious": obvious, "ours": ours, "constant": ours.constant}
    if compiled:
        train = plan.experiment.train.model_copy(update={"compile": True})
        whole = Ours(plan.experiment.model_copy(update={"train": train}), folder / "compiled", plan.device)
        warm_up(whole, plan, 0)
        ways |= {"compiled": whole, "compiled constant": whole.constant}
    times = common.interleaved({name: partial(seconds, way, plan) for name, way in ways.items()}, plan.repeats)
    speed = {name: plan.batch / value for name, value in times.items()}
    return [
        Row("images/s", speed["obvious"], speed["ours"], "more"),
        Row("on a constant batch, images/s", "", speed["constant"]),
        *epoch_rows(plan, folder / "epochs", times["constant"]),
        *compiled_rows(speed),
        Row("peak memory, GB", obvious_peak, our_peak, "less"),
        *peak_rows(ours, speed, plan, peak_tflops),
        *stage_rows(ours, plan),
    ]


def epoch_rows(plan: Plan, folder: Path, constant: float) -> list[Row]:
    """Whole epochs of the product's loop against as many steps on a constant batch, each of `constant` seconds."""
    watch = common.Watch(stop_after=plan.epochs + 1)
    common.watched(plan.experiment, watch, folder, plan.device)
    epoch, steps = statistics.median(watch.epochs[1:]), watch.steps_per_epoch
    return [
        Row(f"an epoch of {steps} steps with its checkpoint, s", "", epoch),
        Row(f"{steps} steps on a constant batch, s", "", float(steps * constant)),
        Row("share of the constant batch, whole epochs, %", "", float(100 * steps * constant / epoch), wanted="95"),
    ]


def compiled_rows(speed: dict[str, float]) -> list[Row]:
    if "compiled" not in speed:
        return [Row("compiled, images/s", speed["obvious"], None)]
    constant = speed["compiled constant"]
    return [
        Row("compiled, images/s", speed["obvious"], speed["compiled"], "more"),
        Row("compiled, on a constant batch, images/s", "", constant),
        Row("compiled, share of the constant batch, steps alone, %", "", 100 * speed["compiled"] / constant),
    ]


def peak_rows(ours: Ours, speed: dict[str, float], plan: Plan, peak_tflops: float) -> list[Row]:
    """Shares of the GPU's bf16 peak: products alone are counted, and alike for both ways."""
    if plan.device.type != "cuda":
        return [Row("share of the bf16 peak, %", None, None)]
    of_image = ours.flops() / plan.batch
    shares = {name: 100 * value * of_image / (peak_tflops * 1e12) for name, value in speed.items()}
    rows = [Row("share of the bf16 peak, %", shares["obvious"], shares["ours"])]
    if "compiled" in shares:
        rows.append(Row("compiled, share of the bf16 peak, %", "", shares["compiled"]))
    return [*rows, Row("GFLOP per image, forward and backward", "", of_image / 1e9)]


def stage_rows(ours: Ours, plan: Plan) -> list[Row]:
    with ours.batches(plan.warm + plan.steps * plan.repeats) as batches:
        stages = [ours.stages(batch) for batch in batches][plan.warm :]
    medians = {stage: statistics.median(times[stage] for times in stages) for stage in stages[0]}
    whole = sum(medians.values())
    return [Row(f"{stage}, ms ({100 * value / whole:.0f} %)", "", float(value)) for stage, value in medians.items()]


def seconds(way: Way, plan: Plan) -> float:
    """Of one step, behind the warm ones."""
    now, steps = common.clock(plan.device), way(plan.warm + plan.steps)
    for _ in islice(steps, plan.warm):
        pass
    started = now()
    for _ in steps:
        pass
    return (now() - started) / plan.steps


def warm_up(way: Way, plan: Plan, before: int) -> float | None:
    """The most GB that the GPU's allocator gave, beyond the bytes that it had given before; None without a GPU."""
    gpu = plan.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(plan.device)
    for _ in way(plan.warm):
        pass
    return (torch.cuda.max_memory_allocated(plan.device) - before) / 1e9 if gpu else None


def allocated(plan: Plan) -> int:
    return torch.cuda.memory_allocated(plan.device) if plan.device.type == "cuda" else 0


if __name__ == "__main__":
    main()
