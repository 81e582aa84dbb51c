"""Batches ready for the model, per core: image cache and whole-batch augmentation against PIL and torchvision.

    python benchmarks/input_pipeline.py [--images 12936] [--cores 2]

The plain variant decodes and resizes JPEGs with PIL, transforms one image at a time with torchvision, and uses a
DataLoader with as many workers as cores. reid-tune reads rows of the cache and augments whole batches, with one thread
on one core. Both give normalised float32 batches of the same images in the same order. "Ahead at the end of epoch"
counts the build of the cache, and the DataLoader on all its cores. Memory is the memory that the images add to each of
4 simultaneous processes (PSS), each with its own decoded images, or with the cache.
"""

import gc
import math
import multiprocessing
import resource
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from common import Row
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reid_tune.config.experiment import Experiment
from reid_tune.data.image_cache.images import DecodedImages
from reid_tune.data.image_spec import ImageSpec, interpolation_for
from reid_tune.data.images import FILTERS, decode_images
from reid_tune.data.records import ImageRecord, training_records
from reid_tune.demo import draw_demo_data
from reid_tune.training.data_split import list_training_folders
from reid_tune.training.image_sets import TrainingImages, load_training_images

IMAGES_PER_IDENTITY = 17  # as in Market-1501
READERS = 4
BARRIER_TIMEOUT = 600  # seconds that a process waits for the others


class Files(Dataset[tuple[Tensor, int]]):
    """JPEGs that are decoded, resized and transformed when they are read."""

    def __init__(self, experiment: Experiment, records: Sequence[ImageRecord], labels: Sequence[int]) -> None:
        model = experiment.model
        self.paths, self.labels = [record.path for record in records], labels
        self.size, self.filter = (model.input_width, model.input_height), FILTERS[interpolation_for(model.backbone)]
        self.transform = common.transforms(experiment)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB").resize(self.size, self.filter)), self.labels[index]


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    with common.temporary_workspace() as folder:
        experiment = make_spec(options, folder)
        records = training_records(*list_training_folders(experiment))
        print(common.machine(common.device_of(options)), flush=True)
        rows = measure(experiment, records, options)
    model, dataset = experiment.model, experiment.dataset
    common.show(
        f"{len(records):,} JPEGs of {common.HEIGHT} x {common.WIDTH} to {model.input_height} x {model.input_width}, "
        f"batch {dataset.batch_size}; medians of {options.repeats} epochs (reid-tune {options.passes} at a time), "
        "taking turns",
        f"plain, {options.cores} workers",
        rows,
    )


def parse() -> Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument(
        "--images", type=int, default=2000, help="approximate number; default 2000, Market-1501 has 12936"
    )
    parser.add_argument(
        "--cores", type=int, default=common.cores(), help="workers of the DataLoader; default all cores"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--passes", type=int, default=5, help="epochs of reid-tune in a repeat; default 5")
    return parser.parse_args()


def make_spec(options: Namespace, folder: Path) -> Experiment:
    images = 60 if options.quick else options.images
    draw_demo_data(folder / "demo", identities=max(2, images // IMAGES_PER_IDENTITY), images=IMAGES_PER_IDENTITY)
    values: dict[str, Any] = {
        "dataset.train_dataset_dir": str(folder / "demo" / "bounding_box_train"),
        "dataset.batch_size": 8 if options.quick else 64,
        "dataset.num_workers": options.cores,
    }
    return common.spec(common.RESNET, values, quick=options.quick)


def measure(experiment: Experiment, records: Sequence[ImageRecord], options: Namespace) -> list[Row]:
    started = time.perf_counter()
    load_training_images(experiment, records)
    build = time.perf_counter() - started
    decoded, shared = (
        memory(experiment, shared=False),
        memory(experiment, shared=True),
    )  # while no other process maps the file
    started = time.perf_counter()
    data = load_training_images(experiment, records)
    opening = time.perf_counter() - started
    device, steps = common.device_of(options), data.sampler.steps_per_epoch
    files = Files(experiment, records, data.labels.tolist())
    variants = {
        "plain": lambda: timed(lambda: load(files, data, steps, options.cores, device), device),
        "reid-tune": lambda: timed(lambda: read_cached(data, steps * options.passes, device), device),
    }
    variants["reid-tune"]()
    medians = common.interleaved_medians(variants, options.repeats)
    (wall, cpu), (our_wall, our_cpu) = medians["plain"], medians["reid-tune"] / options.passes
    images = steps * experiment.dataset.batch_size
    return [
        Row("images/s", images / wall, images / our_wall, "more"),
        Row("cores", str(options.cores), "1"),
        Row("images/s per core", images / wall / options.cores, images / our_wall, "more", target="15x"),
        Row("images per CPU second", images / cpu, images / our_cpu, "more"),
        Row("build of the cache, s", "", build),
        Row("opening it again, s", "", opening),
        Row("ahead at the end of epoch", "", str(math.ceil(build / (wall - our_wall))) if our_wall < wall else "never"),
        Row(f"memory of each of {READERS} processes, MB", decoded, shared, "less"),
    ]


def load(files: Files, data: TrainingImages, count: int, workers: int, device: torch.device) -> None:
    """Load batches with a DataLoader."""
    order = [rows.tolist() for rows in common.batches(data, count)]
    for images, labels in DataLoader(files, batch_sampler=order, num_workers=workers):
        images.to(device), labels.to(device)


def read_cached(data: TrainingImages, count: int, device: torch.device) -> None:
    """Read batches as the training loop does."""
    for number, rows in enumerate(common.batches(data, count)):
        params = data.augmentation.draw(0, 0, number, len(rows))
        data.augmentation.apply(torch.from_numpy(data.images.take(rows)).to(device), params)
        torch.from_numpy(data.labels[rows]).to(device)


def timed(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds of this process and of its child processes that have ended."""
    now = common.clock(device)
    wall, cpu = now(), cpu_seconds()
    work()
    return now() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def memory(experiment: Experiment, *, shared: bool) -> float | None:
    """Return the median MB that the images add to each of several processes that have read them all.

    None where the system does not report it.
    """
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(READERS, timeout=BARRIER_TIMEOUT), context.SimpleQueue()
    processes = [context.Process(target=read, args=(experiment, shared, barrier, results)) for _ in range(READERS)]
    gc.collect()
    gc.freeze()  # A collection in a child would copy all memory that it inherits.
    for process in processes:
        process.start()
    gc.unfreeze()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        return None
    added = [results.get() for _ in processes]
    return None if None in added else statistics.median(added)


def read(experiment: Experiment, shared: bool, barrier: Barrier, results: Any) -> None:
    """Read all images in this process; the processes measure their memory only when all have reached the same point."""
    records = training_records(*list_training_folders(experiment))
    barrier.wait()
    before = pss()
    barrier.wait()
    images: DecodedImages | np.ndarray
    if shared:
        images = load_training_images(experiment, records).images
    else:
        images = decode_images(records, ImageSpec.from_experiment(experiment), threads=1)
    for start in range(0, len(images), 8):
        images[start : start + 8].sum()
    barrier.wait()
    after = pss()
    barrier.wait()
    results.put(None if before is None or after is None else after - before)


def pss() -> float | None:
    """Return the proportional set size of this process in MB: a page shared by n processes counts 1/n."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("Pss:")]
    return int(sizes[0]) * 1024 / 1e6 if sizes else None


if __name__ == "__main__":
    main()
