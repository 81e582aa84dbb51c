"""Steps that train, evaluate and export through the command line."""

import json
import os
import re
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from commands import TOOL, Commands, Finished, last_line
from steps import Failed, Outcome

__all__ = ["Training", "losses_of"]

METRICS = ("mAP", "mINP", "Rank-1", "Rank-5")
TOLERANCE = 1e-3  # Of the mAP in 0..1 between GPU and CPU.


@dataclass(frozen=True)
class Training:
    """Commands of training on one data set, in a folder of work.

    `images` is a folder in Market-1501's layout or a tar file of one; None draws a data set. `quick` draws a tiny one
    and takes a small network.
    """

    commands: Commands
    work: Path
    images: Path | None
    cuda: bool
    quick: bool

    @property
    def spec(self) -> Path:
        return self.work / "spec.yaml"

    def data(self, limit: float) -> Outcome:
        """Provide the images, and write the spec that trains on them."""
        data = self._provide(limit)
        height, width = (64, 32) if self.quick else (256, 128)
        tree = {
            "results_dir": str(self.work / "results"),
            "model": {
                "backbone": "resnet18" if self.quick else "resnet_50",
                "input_height": height,
                "input_width": width,
            },
            "dataset": {
                "train_dataset_dir": str(data / "bounding_box_train"),
                "test_dataset_dir": str(data / "bounding_box_test"),
                "query_dataset_dir": str(data / "query"),
                "batch_size": 8 if self.quick else 64,
                "num_workers": len(os.sched_getaffinity(0)),
            },
            "train": {"num_epochs": 1, "checkpoint_interval": 10},
        }
        self.spec.write_text(json.dumps(tree))  # JSON is YAML.
        return f"{len(list((data / 'bounding_box_train').iterdir()))} training images", {}

    def _provide(self, limit: float) -> Path:
        data = self.work / "data"
        if self.quick or self.images is None:
            identities, images = (6, 4) if self.quick else (150, 8)
            command = [*TOOL, "demo-data", data, "--identities", identities, "--images", images]
            self.commands.require("demo-data", command, limit)
            return data
        if self.images.is_dir():
            return self.images
        with tarfile.open(self.images) as archive:
            archive.extractall(data, filter="data")
        return next(data.rglob("bounding_box_train")).parent

    def run(self, name: str, limit: float, *pairs: str, task: str = "train", **environment: str) -> Finished:
        """Run a task of the spec with overrides, its results in a folder of the name."""
        command = [*TOOL, task, "-e", self.spec, f"results_dir={self.work / name}", *pairs]
        return self.commands.require(name, command, limit, **environment)

    def trains(self, name: str, *pairs: str) -> Callable[[float], Outcome]:
        """A step that trains and must get through with finite losses."""

        def function(limit: float) -> Outcome:
            lines = losses_of(self.run(name, limit, *pairs).err)
            return lines[-1], lines

        return function

    def latest(self, name: str) -> Path:
        return self.work / name / "train" / "reid_model_latest.pth"

    def evaluate(self, limit: float) -> Outcome:
        """Score the checkpoint of `bf16` on the device and on the CPU, which must agree."""
        device, cpu = self._metrics("device", limit), self._metrics("cpu", limit, CUDA_VISIBLE_DEVICES="")
        differences = {
            f"{kind}.{metric}": abs(device[kind][metric] - cpu[kind][metric])
            for kind in ("plain", "re_ranked")
            for metric in METRICS
        }
        worst = max(differences, key=differences.__getitem__)
        text = (
            f"mAP {100 * device['plain']['mAP']:.2f} / re-ranked {100 * device['re_ranked']['mAP']:.2f} %; furthest "
            f"from the CPU: {worst} by {100 * differences[worst]:.3f} points; {device['seconds']} s, "
            f"CPU {cpu['seconds']} s"
        )
        if max(differences["plain.mAP"], differences["re_ranked.mAP"]) > TOLERANCE:
            raise Failed(text)
        return text, differences

    def _metrics(self, name: str, limit: float, **environment: str) -> dict[str, Any]:
        folder, started = self.work / f"evaluate-{name}", time.monotonic()
        pairs = (f"evaluate.checkpoint={self.latest('bf16')}", f"evaluate.results_dir={folder}")
        self.run("bf16", limit, *pairs, task="evaluate", **environment)
        seconds = round(time.monotonic() - started, 1)
        return json.loads((folder / "metrics.json").read_text()) | {"seconds": seconds}

    def export(self, limit: float) -> Outcome:
        """Export the checkpoint of `bf16` to ONNX in fp32 and fp16; the command compares both with PyTorch."""
        figures = []
        for precision in ("fp32", "fp16"):
            pairs = (f"export.onnx_file={self.work / f'model-{precision}.onnx'}", f"export.precision={precision}")
            finished = self.commands.require("export", [*TOOL, "export", self.latest("bf16"), *pairs], limit)
            figures.append(f"{precision}: {last_line(finished.err)}")
        return re.sub(r" \(limit [^)]*\)", "", "; ".join(figures)), figures

    def repeat(self, limit: float) -> Outcome:
        """Train twice at once with `train.deterministic`: every tensor must be equal, bit for bit."""
        names = ("one", "two")
        pairs = ("train.deterministic=true", "train.precision=bf16", "dataset.validation=none", "train.num_epochs=2")
        with ThreadPoolExecutor(2) as pool:
            texts = [finished.err for finished in pool.map(lambda name: self.run(name, limit, *pairs), names)]
        one, two = (torch.load(self.latest(name), weights_only=True, map_location="cpu")["model"] for name in names)
        unlike = [name for name, tensor in one.items() if not torch.equal(tensor, two[name])]
        if unlike:
            raise Failed(f"{len(unlike)} of {len(one)} tensors differ between two runs, the first is {unlike[0]}")
        return f"{len(one)} tensors are equal; {losses_of(texts[0])[-1]}", {}

    def hidden(self, limit: float) -> Outcome:
        """Train with every GPU hidden: on the CPU, with nearly the loss of the same run on the device."""
        small = ("model.backbone=resnet18", "model.input_height=64", "model.input_width=32", "dataset.validation=none")
        cpu = self.run("hidden", limit, *small, CUDA_VISIBLE_DEVICES="").err
        if "no GPU, the CPU" not in cpu:
            raise Failed("with CUDA_VISIBLE_DEVICES='' it does not say that it takes the CPU")
        texts = (cpu, self.run("seen", limit, *small).err)
        losses = [float(re.findall(r"loss ([\d.]+)", text)[-1]) for text in texts]
        text = f"takes the CPU; loss of its first epoch {losses[0]:.3f}, on the device {losses[1]:.3f}"
        if abs(losses[0] - losses[1]) > 0.02 * losses[0]:
            raise Failed(text)
        return text, losses

    def absent(self, limit: float) -> Outcome:
        """Ask for a GPU that the machine lacks: one sentence. Where there is none at all the field does nothing."""
        command = [*TOOL, "train", "-e", self.spec, f"results_dir={self.work / 'absent'}", "train.gpu_ids=[99]"]
        if self.cuda:
            return self.commands.sentence("absent", command, limit, (2,), r"train\.gpu_ids asks for GPU 99"), {}
        self.commands.require("absent", command, limit)
        return "no GPU here: gpu_ids does not matter", {}

    def too_large(self, limit: float) -> Outcome:
        """Train with a batch of resnet_50 that takes some 250 GB: one sentence that names memory and batch.

        A larger one has tensors of more than 2^31 values, at which kernels fail in other ways.
        """
        batch, instances = (3_072, 24) if self.cuda else (4, 2)
        pairs = (f"dataset.batch_size={batch}", f"dataset.num_instances={instances}", "dataset.validation=none")
        command = [*TOOL, "train", "-e", self.spec, f"results_dir={self.work / 'large'}", *pairs]
        if self.cuda:
            pattern = r"(?i)memory.*batch_size|batch_size.*memory"
            return self.commands.sentence("memory", command, limit, (1, 2, 3), pattern), {}
        self.commands.require("memory", command, limit)
        return "not tried on a CPU", {}


def losses_of(err: str) -> list[str]:
    """The lines of the epochs that a training prints, all with finite losses."""
    lines = re.findall(r"^epoch \d+/.*$", err, re.MULTILINE)
    if not lines or re.search(r"loss (nan|inf)", err):
        raise Failed(f"no epoch, or a loss that is not finite: {last_line(err)}")
    return lines
