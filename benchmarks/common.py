"""What the benchmarks of training share: options, data, spec, clock and table."""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torchvision.transforms import v2

from reid_tune.config.defaults import backbone_defaults
from reid_tune.config.experiment import Experiment, unflatten
from reid_tune.tables import print_table
from reid_tune.training.image_sets import TrainingImages
from reid_tune.training.loop import train
from reid_tune.training.reporting import Metrics

# Epochs of a whole training; Market-1501's training images, their identities, and the size of its crops.
EPOCHS = 120
IMAGES, IDENTITIES, HEIGHT, WIDTH = 12_936, 751, 128, 64
RESNET, SWIN, TINY = "resnet_50", "swin_tiny_patch4_window7_224", "resnet18"
_CPUINFO = Path("/proc/cpuinfo")

# None is not measured, "" does not apply.
Cell = float | str | None


@dataclass(frozen=True)
class Row:
    """A line of the table; `better` says whether more or less is better, and so which way the ratio goes."""

    name: str
    other: Cell
    ours: Cell
    better: Literal["more", "less", ""] = ""
    wanted: str = ""

    def cells(self) -> list[str]:
        ratio = ""
        if self.better and isinstance(self.other, float) and isinstance(self.ours, float):
            more = self.better == "more"
            ratio = f"{self.ours / self.other if more else self.other / self.ours:.2f}x"
        return [self.name, _text(self.other), _text(self.ours), ratio, self.wanted]


def show(title: str, other: str, rows: Sequence[Row], ours: str = "reid-tune") -> None:
    """Print a title and the table; `other` and `ours` head the two columns that are compared."""
    print(title)
    table = Table("", *(other, ours, "ratio", "wanted"))
    for row in rows:
        table.add_row(*row.cells())
    print_table(table)


class Enough(Exception):
    """Raised to end a run before the end of its schedule."""


@dataclass
class Watch:
    """A reporter that notes when epochs are reported, in seconds of wall and CPU time, and ends a run.

    The loop reports an epoch once its checkpoint is written, early in the next epoch; all epochs alike.
    """

    stop_after: int | None = None  # epochs
    ends: list[float] = field(default_factory=list)
    cpu_ends: list[float] = field(default_factory=list)
    history: list[Metrics] = field(default_factory=list)
    steps_per_epoch: int = 0

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._note()

    def info(self, text: str) -> None:
        pass

    def report_step(self, step: int, loss: float) -> None:
        pass

    def report_epoch(self, metrics: Metrics) -> None:
        self._note()
        self.history.append(metrics)
        if len(self.history) == self.stop_after:
            raise Enough

    def _note(self) -> None:
        self.ends.append(time.perf_counter())
        self.cpu_ends.append(time.process_time())

    @property
    def epochs(self) -> list[float]:
        """Seconds of each epoch, its validation and its checkpoint included."""
        return list(np.diff(self.ends).tolist())

    @property
    def speeds(self) -> list[float]:
        """Images per second of each epoch's steps."""
        return [float(metrics["images_per_second"]) for metrics in self.history]


def watched(experiment: Experiment, watch: Watch, folder: Path, device: torch.device) -> None:
    """Train through the product's loop until the watch has enough.

    The spec's schedule may be longer: by its length the product decides how long it may search for fast kernels.
    """
    with suppress(Enough):
        train(experiment, watch, folder, device=device)


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which show only that the script runs")
    return parser


def device_of(given: argparse.Namespace) -> torch.device:
    return torch.device("cuda", 0) if given.device == "cuda" else torch.device("cpu")


def spec(backbone: str, values: Mapping[str, Any], *, quick: bool = False) -> Experiment:
    """The backbone's default spec without validation, with values by dotted key; 64 x 32 pixels if `quick`."""
    tiny = {"model.input_height": 64, "model.input_width": 32} if quick else {}
    flat = backbone_defaults(backbone) | {"dataset.validation": "none"} | tiny | dict(values)
    return Experiment.model_validate(unflatten(flat))


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, in which the image cache has its place too."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["REID_TUNE_CACHE_DIR"] = str(Path(name, "cache"))
        yield Path(name)


def draw_crops(folder: Path, images: int, identities: int) -> Path:
    """Write JPEGs of smooth random colours under Market-1501's names, the identities taking turns."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 4, 3), np.uint8))
        name = f"{number % identities + 1:04d}_c{number // identities % 6 + 1}s1_{number:06d}_01.jpg"
        coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(folder / name)
    return folder


def transforms(experiment: Experiment) -> v2.Compose:
    """The spec's augmentation by torchvision, of one image at a time: PIL or uint8 [3, H, W]."""
    dataset, model = experiment.dataset, experiment.model
    noise = model.backbone.startswith("swin")
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(dataset.prob),
            v2.Pad(dataset.padding),
            v2.RandomCrop((model.input_height, model.input_width)),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(dataset.pixel_mean, dataset.pixel_std),
            v2.RandomErasing(
                dataset.re_prob,
                scale=(0.02, 1 / 3) if noise else (0.02, 0.4),
                ratio=(0.3, 1 / 0.3) if noise else (0.3, 3.33),
                value="random" if noise else 0,
            ),
        ]
    )


def batches(data: TrainingImages, count: int) -> Iterator[np.ndarray]:
    """Indices of the first batches of a run."""
    epochs = (data.sampler.epoch(number) for number in range(count))
    return islice((chosen for epoch in epochs for chosen in epoch), count)


def clock(device: torch.device) -> Callable[[], float]:
    """A clock in seconds that waits for the device to have done its work."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def interleaved(ways: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """The medians of each way's values, a number or a tuple of numbers, the ways taking turns."""
    values: dict[str, list[Any]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, measure in ways.items():
            values[name].append(measure())
    return {name: np.median(taken, axis=0) for name, taken in values.items()}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_CPUINFO.read_text().split()))


def machine(device: torch.device) -> str:
    """Processor, cores, load, GPU and torch in one line."""
    fields = [line.partition(":") for line in _CPUINFO.read_text().splitlines()]
    names = [value.strip() for key, _, value in fields if key.strip() == "model name"]
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    parts = [*names[:1], platform.machine(), f"{cores()} cores", f"threads of torch: {torch.get_num_threads()}", gpu]
    return ", ".join([*parts, f"torch {torch.__version__}", f"load {os.getloadavg()[0]:.1f}"])


def _text(cell: Cell) -> str:
    if cell is None:
        return "not measured"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return cell
