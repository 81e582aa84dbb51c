"""Where the time of a training step goes, and what each setting brings; every finding is written as it comes.

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
from inspection import embedding_speeds, epoch_costs, profile, waits
from ways import Ours, Way

# Settings of a run in bf16, each measured by itself; the seconds are the least that must be left for it.
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
SLOW = ("compiled",)  # left out of a quick run


class Laboratory:
    """Measure on one device, and write all findings to a JSON file after each."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.file, self.quick, self.folder = options.file, options.quick, folder
        self.device = common.device_of(options)
        self.batch = 8 if options.quick else 128
        self.warm, self.steps = (8, 25) if self.device.type == "cuda" else (1, 1)
        self.findings: dict[str, Any] = {}
        self._end = time.monotonic() + options.seconds
        images, identities = (64, 16) if options.quick else (4 * common.IDENTITIES, common.IDENTITIES)
        self.crops = common.draw_crops(folder / "crops", images, identities)

    def note(self, name: str, function: Callable[[], Any], least: float = 8) -> None:
        """Keep what a function finds, or its error; it is not called with less than `least` seconds left."""
        if self._end - time.monotonic() < least:
            self.findings[name] = "no time is left"
        else:
            try:
                self.findings[name] = function()
            except Exception as error:
                self.findings[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        self.file.write_text(json.dumps(self.findings, indent=1))

    def ours(self, values: Mapping[str, Any]) -> Ours:
        """A run in bf16 with these values of the spec."""
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
        return Ours(common.spec(backbone, flat), self.folder / f"run-{len(self.findings)}", self.device)

    def speeds(self, ours: Ours) -> str:
        """Images/s on a constant batch and with the input pipeline, seconds of the first step, and the most memory."""
        started, now = time.perf_counter(), common.clock(self.device)
        for _ in ours.constant(1):
            pass
        first = now() - started
        constant, whole = self.seconds(ours.constant), self.seconds(ours)
        memory = ""
        if self.device.type == "cuda":
            memory = f"; {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most"
        return (
            f"constant batch {self.batch / constant:.0f} images/s ({1000 * constant:.1f} ms a step), with the input "
            f"pipeline {self.batch / whole:.0f} ({1000 * whole:.1f} ms); first step {first:.1f} s{memory}"
        )

    def seconds(self, way: Way) -> float:
        """Of one step after the warm ones, the better of two repeats."""
        results, now = [], common.clock(self.device)
        for _ in range(2):
            steps = way(self.warm + self.steps)
            for _ in range(self.warm):
                next(steps)
            started = now()
            for _ in steps:
                pass
            results.append((now() - started) / self.steps)
        return min(results)

    def run(self, profile_file: Path) -> None:
        self.note("machine", lambda: common.machine(self.device))
        self._inspect(profile_file)
        for name, (least, values) in SETTINGS.items():
            if not (self.quick and name in SLOW):
                self.note(name, lambda values=values: self.speeds(self.ours(values)), least)

    def _inspect(self, profile_file: Path) -> None:
        ours = self.ours({})
        self.note("bf16", lambda: self.speeds(ours))
        self.note("where the host waits for the device, 3 steps", lambda: waits(ours))
        self.note("profile", lambda: profile(ours, profile_file))
        self.note("an epoch in addition to its steps", lambda: epoch_costs(ours, self.folder / "epochs"))
        self.note("embedding, images/s", lambda: embedding_speeds(ours))


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--file", type=Path, required=True, help="for the findings")
    parser.add_argument("--profile", type=Path, help="for the table of kernels; default next to the file")
    parser.add_argument("--seconds", type=float, default=200, help="for all findings together")
    options = parser.parse_args()
    with common.workplace() as folder:
        Laboratory(options, folder).run(options.profile or options.file.with_suffix(".profile.txt"))


if __name__ == "__main__":
    main()
