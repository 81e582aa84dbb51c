"""Time of the parts of a training step, and the effect of settings; each result is written when it is measured.

PYTHONPATH=benchmarks python benchmarks/gpu/laboratory.py --file FILE [--device cpu --quick]
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import common
import torch
from inspection import find_host_waits, measure_embedding, measure_epoch, profile_steps
from trainers import ReidTuneTrainer, Trainer

# Settings of a run in bf16, each measured separately, with the minimum of remaining seconds for it.
SETTINGS: dict[str, tuple[float, dict[str, Any]]] = {
    "images on the device": (10, {"dataset.resident": True}),
    "images on the host": (10, {"dataset.resident": False}),
    "4 chunks": (12, {"train.accumulate": 4}),
    "CUDA graphs": (15, {"train.cuda_graphs": True}),
    "fp32 with TF32": (15, {"train.precision": "fp32", "train.tf32": True}),
    "fp32 without TF32": (30, {"train.precision": "fp32", "train.tf32": False}),
    "fp16": (10, {"train.precision": "fp16"}),
    "resnet18": (10, {"model.backbone": common.TINY}),
    "resnet18, CUDA graphs": (12, {"model.backbone": common.TINY, "train.cuda_graphs": True}),
    "swin_tiny": (15, {"model.backbone": common.SWIN}),
    "compiled": (50, {"train.compile": True}),
}
SLOW = ("compiled",)  # omitted in a quick run


class Laboratory:
    """Measures on one device, and writes all results to a JSON file after each."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.file, self.quick, self.folder = options.file, options.quick, folder
        self.device = common.device_of(options)
        self.batch = 8 if options.quick else 128
        self.warm, self.steps = (8, 25) if self.device.type == "cuda" else (1, 1)
        self.results: dict[str, Any] = {}
        self._end = time.monotonic() + options.seconds
        images, identities = (64, 16) if options.quick else (4 * common.IDENTITIES, common.IDENTITIES)
        self.crops = common.draw_crops(folder / "crops", images, identities)

    def record(self, name: str, function: Callable[[], Any], least: float = 8) -> None:
        """Record the result of a function, or its error; with less than `least` seconds left it is not called."""
        if self._end - time.monotonic() < least:
            self.results[name] = "no time is left"
        else:
            try:
                self.results[name] = function()
            except Exception as error:
                self.results[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        self.file.write_text(json.dumps(self.results, indent=1))

    def make_trainer(self, values: Mapping[str, Any]) -> ReidTuneTrainer:
        """Return a run in bf16 with the given values of the spec."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        height, width = (64, 32) if self.quick else (256, 128)
        flat = {
            "model.input_height": height,
            "model.input_width": width,
            "dataset.train_dataset_dir": str(self.crops),
            "dataset.batch_size": self.batch,
            "dataset.num_workers": common.cores(),
            "train.precision": "bf16",
            "train.num_epochs": common.EPOCHS,
            "train.checkpoint_interval": 10,
            **values,
        }
        backbone = flat.pop("model.backbone", common.TINY if self.quick else common.RESNET)
        return ReidTuneTrainer(common.spec(backbone, flat), self.folder / f"run-{len(self.results)}", self.device)

    def measure(self, trainer: ReidTuneTrainer) -> str:
        """Return images/s on a constant batch and with the input pipeline, seconds of the first step, peak memory."""
        started, now = time.perf_counter(), common.clock(self.device)
        for _ in trainer.train_on_one_batch(1):
            pass
        first = now() - started
        constant, whole = self.seconds(trainer.train_on_one_batch), self.seconds(trainer)
        memory = ""
        if self.device.type == "cuda":
            memory = f"; {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most"
        return (
            f"constant batch {self.batch / constant:.0f} images/s ({1000 * constant:.1f} ms a step), with the input "
            f"pipeline {self.batch / whole:.0f} ({1000 * whole:.1f} ms); first step {first:.1f} s{memory}"
        )

    def seconds(self, trainer: Trainer) -> float:
        """Return the seconds of a step after the warm-up, the better of two repeats."""
        results, now = [], common.clock(self.device)
        for _ in range(2):
            steps = trainer(self.warm + self.steps)
            for _ in range(self.warm):
                next(steps)
            started = now()
            for _ in steps:
                pass
            results.append((now() - started) / self.steps)
        return min(results)

    def run(self, profile_file: Path) -> None:
        self.record("machine", lambda: common.machine(self.device))
        self._inspect(profile_file)
        for name, (least, values) in SETTINGS.items():
            if not (self.quick and name in SLOW):
                self.record(name, lambda values=values: self.measure(self.make_trainer(values)), least)

    def _inspect(self, profile_file: Path) -> None:
        trainer = self.make_trainer({})
        self.record("bf16", lambda: self.measure(trainer))
        self.record("where the host waits for the device, 3 steps", lambda: find_host_waits(trainer))
        self.record("profile", lambda: profile_steps(trainer, profile_file))
        self.record("an epoch in addition to its steps", lambda: measure_epoch(trainer, self.folder / "epochs"))
        self.record("embedding, images/s", lambda: measure_embedding(trainer))


def main() -> None:
    parser = common.make_parser(__doc__)
    parser.add_argument("--file", type=Path, required=True, help="for the results")
    parser.add_argument("--profile", type=Path, help="for the table of kernels; by default next to the file")
    parser.add_argument("--seconds", type=float, default=200, help="time of all measurements together")
    options = parser.parse_args()
    with common.temporary_workspace() as folder:
        Laboratory(options, folder).run(options.profile or options.file.with_suffix(".profile.txt"))


if __name__ == "__main__":
    main()
