"""Shared parts of the benchmarks: options, data, specs, timing and tables."""

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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from reid_tune.config.defaults import backbone_defaults
from reid_tune.config.experiment import Experiment, unflatten
from reid_tune.tables import print_table
from reid_tune.training.image_sets import TrainingImages
from reid_tune.training.reporting import Metrics

if TYPE_CHECKING:  # `resume.py` measures a command that imports neither torchvision nor networks.
    from torchvision.transforms import v2

# Epochs of a whole training; number of Market-1501's training images and identities, and the size of its crops.
EPOCHS = 120
IMAGES, IDENTITIES, HEIGHT, WIDTH = 12_936, 751, 128, 64
RESNET, SWIN, TINY = "resnet_50", "swin_tiny_patch4_window7_224", "resnet18"
_CPUINFO = Path("/proc/cpuinfo")

# None for "not measured", "" where the column does not apply.
Cell = float | str | None


@dataclass(frozen=True)
class Row:
    """Row of the table.

    Attributes:
        name: Name of the figure.
        reference: Figure of the variant that is compared with.
        value: Figure of reid-tune, or of the second variant.
        better: Whether more or less is better; the ratio is above 1 if `value` is better.
        target: Target of the figure.
    """

    name: str
    reference: Cell
    value: Cell
    better: Literal["more", "less", ""] = ""
    target: str = ""

    def cells(self) -> list[str]:
        ratio = ""
        if self.better and isinstance(self.reference, float) and isinstance(self.value, float):
            quotient = self.value / self.reference if self.better == "more" else self.reference / self.value
            ratio = f"{quotient:.2f}x"
        return [self.name, _text(self.reference), _text(self.value), ratio, self.target]


def show(title: str, reference: str, rows: Sequence[Row], value: str = "reid-tune") -> None:
    """Print a title and the table; `reference` and `value` are the headings of the two compared columns."""
    print(title)
    table = Table("", *(reference, value, "ratio", "target"))
    for row in rows:
        table.add_row(*row.cells())
    print_table(table)


class StopTraining(Exception):
    """Ends a run before the end of its schedule."""


@dataclass
class EpochTimer:
    """Reporter that records the times of the epochs' reports, in seconds of wall and CPU time, and can end the run.

    The loop reports every epoch after its checkpoint is written, early in the next epoch.

    Attributes:
        stop_after: Number of epochs after which the run ends; None for the whole schedule.
        ends: Wall time of the start and of each report.
        cpu_ends: CPU time of the start and of each report.
        history: Metrics of the epochs.
        steps_per_epoch: Steps per epoch.
    """

    stop_after: int | None = None
    ends: list[float] = field(default_factory=list)
    cpu_ends: list[float] = field(default_factory=list)
    history: list[Metrics] = field(default_factory=list)
    steps_per_epoch: int = 0

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._record_time()

    def info(self, text: str) -> None:
        pass

    def report_step(self, step: int, loss: float) -> None:
        pass

    def report_epoch(self, metrics: Metrics) -> None:
        self._record_time()
        self.history.append(metrics)
        if len(self.history) == self.stop_after:
            raise StopTraining

    def _record_time(self) -> None:
        self.ends.append(time.perf_counter())
        self.cpu_ends.append(time.process_time())

    @property
    def epochs(self) -> list[float]:
        """Seconds of each epoch, with its validation and its checkpoint."""
        return list(np.diff(self.ends).tolist())

    @property
    def speeds(self) -> list[float]:
        """Images per second of each epoch's steps."""
        return [float(metrics["images_per_second"]) for metrics in self.history]


def train_timed(experiment: Experiment, timer: EpochTimer, folder: Path, device: torch.device) -> None:
    """Train with reid-tune's loop until the timer ends the run.

    The spec's schedule may be longer: its length decides whether the loop searches for fast kernels.
    """
    from reid_tune.training.loop import train

    with suppress(StopTraining):
        train(experiment, timer, folder, device=device)


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to check that the script runs")
    return parser


def device_of(options: argparse.Namespace) -> torch.device:
    return torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")


def spec(backbone: str, values: Mapping[str, Any], *, quick: bool = False) -> Experiment:
    """Return the backbone's default spec without validation, with the given values by dotted key.

    With `quick` the images have 64 x 32 pixels.
    """
    tiny = {"model.input_height": 64, "model.input_width": 32} if quick else {}
    flat = backbone_defaults(backbone) | {"dataset.validation": "none"} | tiny | dict(values)
    return Experiment.model_validate(unflatten(flat))


@contextmanager
def temporary_workspace() -> Iterator[Path]:
    """Yield a temporary folder, which also contains the image cache."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["REID_TUNE_CACHE_DIR"] = str(Path(name, "cache"))
        yield Path(name)


def draw_crops(folder: Path, images: int, identities: int) -> Path:
    """Write JPEGs of smooth random colours with Market-1501's names, one identity after the other in turn."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 4, 3), np.uint8))
        name = f"{number % identities + 1:04d}_c{number // identities % 6 + 1}s1_{number:06d}_01.jpg"
        coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(folder / name)
    return folder


def transforms(experiment: Experiment) -> "v2.Compose":
    """Return the spec's augmentation with torchvision, for one image at a time (PIL or uint8 [3, H, W])."""
    from torchvision.transforms import v2

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
    """Yield the image indices of the first batches of a run."""
    epochs = (data.sampler.epoch(number) for number in range(count))
    return islice((rows for epoch in epochs for rows in epoch), count)


def clock(device: torch.device) -> Callable[[], float]:
    """Return a clock in seconds that waits until the device has finished its work."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def interleaved_medians(measurements: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """Return the medians of each measurement's values; the measurements take turns.

    Args:
        measurements: Functions that return a number or a tuple of numbers.
        repeats: Number of values of each measurement.
    """
    values: dict[str, list[Any]] = {name: [] for name in measurements}
    for _ in range(repeats):
        for name, measure in measurements.items():
            values[name].append(measure())
    return {name: np.median(results, axis=0) for name, results in values.items()}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_CPUINFO.read_text().split()))


def machine(device: torch.device) -> str:
    """Return processor, cores, load, GPU and torch's version in one line."""
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
