"""Share of a training step that each augmentation takes on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py

Each row switches one augmentation on for every image, in addition to flip, crop and the normalisation. The last row has
all of them together, with a probability of 0.5. Figures are CPU time, which other processes change little; medians.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import common
import torch
from common import Row
from trainers import ReidTuneTrainer

from reid_tune.config.augmentation import Affine, Blur, ErasingShape, RandAugment, RandomPatch
from reid_tune.config.dataset import ColorJitter
from reid_tune.data.augment.augmentation import Augmentation
from reid_tune.data.transfer import to_device

BATCH = 16


def main() -> None:
    options = common.make_parser(__doc__).parse_args()
    device = common.device_of(options)
    sizes = [(common.TINY, 128, 64), (common.RESNET, 256, 128)]
    with common.temporary_workspace() as folder:
        print(common.machine(device), flush=True)
        data = common.draw_crops(folder / "crops", 64, 16)
        columns = [
            measure(data, folder / name, device, name, *((64, 32) if options.quick else size), quick=options.quick)
            for name, *size in (sizes[:1] * 2 if options.quick else sizes)
        ]
    rows = [Row(name, columns[0][name], columns[1][name], target="" if "ms" in name else "5") for name in columns[0]]
    first, second = (f"{name}, {height} x {width}" for name, height, width in sizes)
    common.show(f"% of the CPU time of a step, batch {BATCH}", first, rows, second)


def measure(
    data: Path, folder: Path, device: torch.device, backbone: str, height: int, width: int, *, quick: bool
) -> dict[str, float]:
    """Return the milliseconds of a step and the share of each augmentation in percent."""
    values = {
        "dataset.train_dataset_dir": str(data),
        "dataset.batch_size": BATCH,
        "model.input_height": height,
        "model.input_width": width,
        "train.precision": "fp32",
    }
    trainer = ReidTuneTrainer(common.spec(backbone, values), folder, device)
    with trainer.batches(1) as batches:
        batch = next(batches)
        images, labels = trainer.run.image_source.load(batch.images), to_device(batch.labels, device)
        inputs = trainer.run.prepare_inputs(batch)[0]
    step = partial(trainer.run.step, inputs, labels)
    plain = replace(trainer.run.data.augmentation, erase=0.0)
    times = {"step": lambda: cpu_seconds(step)} | {
        name: partial(seconds_of, augmentation, images) for name, augmentation in variants(plain).items()
    }
    medians = common.interleaved_medians(times, 1 if quick else 5)
    total = medians.pop("step")
    return {"a step, ms": 1000 * total} | {name: 100 * float(value / total) for name, value in medians.items()}


def variants(plain: Augmentation) -> dict[str, Augmentation]:
    """Return the augmentation of each row."""
    return {
        "flip, crop, normalisation": plain,
        "erasing": replace(plain, erase=1.0),
        "erasing of 5 boxes": replace(plain, erase=1.0, shape=ErasingShape(max_area=0.1, count=5)),
        "colour jitter": replace(plain, jitter=ColorJitter(prob=1.0)),
        "random patch": replace(plain, patch=RandomPatch(prob=1.0)),
        "affine transform": replace(plain, affine=Affine(prob=1.0)),
        "RandAugment of 2 operations": replace(plain, rand_augment=RandAugment(prob=1.0)),
        "greyscale": replace(plain, grey=1.0),
        "local greyscale": replace(plain, local_grey=1.0),
        "blur, sigma 1": replace(plain, blur=Blur(prob=1.0)),
        "all, with a probability of 0.5": replace(
            plain,
            erase=0.5,
            jitter=ColorJitter(prob=0.5),
            patch=RandomPatch(prob=0.5),
            affine=Affine(prob=0.5),
            rand_augment=RandAugment(prob=0.5),
            grey=0.5,
            local_grey=0.5,
            blur=Blur(prob=0.5),
        ),
    }


def seconds_of(augmentation: Augmentation, images: torch.Tensor) -> float:
    """Return the CPU seconds of a batch, with its draws, as the median of several batches."""

    def augment(step: int) -> None:
        params = augmentation.draw(0, 0, step, BATCH)
        augmentation.apply(torch.cat([images, images[params.patch_images]]), params)

    augment(0)
    return sorted(cpu_seconds(partial(augment, step)) for step in range(3))[1]


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    main()
