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
TOLERANCE = 1e-3  # of the mAP in 0..1 between GPU and CPU


@dataclass(frozen=True)
class Training:
    """Commands of training on a data set.

    Attributes:
        commands: Runner of the commands.
        work: Folder of the results.
        images: Folder in Market-1501's layout, or a tar file of one; None draws a data set.
        cuda: Whether to train on a GPU.
        quick: Whether to draw a tiny data set and train a small network.
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
        """Provide the images, and write a spec that trains on them."""
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
        """Run a task of the spec with overrides; its results are in the folder `name`."""
        command = [*TOOL, task, "-e", self.spec, f"results_dir={self.work / name}", *pairs]
        return self.commands.require(name, command, limit, **environment)

    def train_step(self, name: str, *pairs: str) -> Callable[[float], Outcome]:
        """Return a step that trains and must end with finite losses."""

        def function(limit: float) -> Outcome:
            lines = losses_of(self.run(name, limit, *pairs).err)
            return lines[-1], lines

        return function

    def latest(self, name: str) -> Path:
        return self.work / name / "train" / "reid_model_latest.pth"

    def evaluate(self, limit: float) -> Outcome:
        """Score the checkpoint of `bf16` on the device and on the CPU; the scores must agree."""
        device, cpu = self._metrics("device", limit), self._metrics("cpu", limit, CUDA_VISIBLE_DEVICES="")
        differences = {
            f"{kind}.{metric}": abs(device[kind][metric] - cpu[kind][metric])
            for kind in ("plain", "re_ranked")
            for metric in METRICS
        }
        worst = max(differences, key=differences.__getitem__)
        text = (
            f"mAP {100 * device['plain']['mAP']:.2f} / re-ranked {100 * device['re_ranked']['mAP']:.2f} %; largest "
            f"difference from the CPU: {worst} by {100 * differences[worst]:.3f} points; {device['seconds']} s, "
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

    def train_twice(self, limit: float) -> Outcome:
        """Train twice at the same time with `train.deterministic`; every tensor must be equal, bit for bit."""
        names = ("one", "two")
        pairs = ("train.deterministic=true", "train.precision=bf16", "dataset.validation=none", "train.num_epochs=2")
        with ThreadPoolExecutor(2) as pool:
            texts = [finished.err for finished in pool.map(lambda name: self.run(name, limit, *pairs), names)]
        one, two = (torch.load(self.latest(name), weights_only=True, map_location="cpu")["model"] for name in names)
        different = [name for name, tensor in one.items() if not torch.equal(tensor, two[name])]
        if different:
            raise Failed(f"{len(different)} of {len(one)} tensors differ between two runs, the first is {different[0]}")
        return f"{len(one)} tensors are equal; {losses_of(texts[0])[-1]}", {}

    def train_without_gpu(self, limit: float) -> Outcome:
        """Train with every GPU hidden; the CPU must be used, with nearly the loss of the same run on the device."""
        small = ("model.backbone=resnet18", "model.input_height=64", "model.input_width=32", "dataset.validation=none")
        cpu = self.run("hidden", limit, *small, CUDA_VISIBLE_DEVICES="").err
        if "no GPU, the CPU" not in cpu:
            raise Failed("with CUDA_VISIBLE_DEVICES='' it does not report that it uses the CPU")
        texts = (cpu, self.run("seen", limit, *small).err)
        losses = [float(re.findall(r"loss ([\d.]+)", text)[-1]) for text in texts]
        text = f"uses the CPU; loss of its first epoch {losses[0]:.3f}, on the device {losses[1]:.3f}"
        if abs(losses[0] - losses[1]) > 0.02 * losses[0]:
            raise Failed(text)
        return text, losses

    def train_on_missing_gpu(self, limit: float) -> Outcome:
        """Train on a GPU that the machine lacks: an error message. Without any GPU the field has no effect."""
        command = [*TOOL, "train", "-e", self.spec, f"results_dir={self.work / 'absent'}", "train.gpu_ids=[99]"]
        if self.cuda:
            return self.commands.require_error("absent", command, limit, (2,), r"train\.gpu_ids asks for GPU 99"), {}
        self.commands.require("absent", command, limit)
        return "no GPU on this machine: gpu_ids has no effect", {}

    def train_too_large_batch(self, limit: float) -> Outcome:
        """Train resnet_50 with a batch that needs about 250 GB: an error message that names memory and batch.

        A larger batch has tensors of more than 2^31 values, for which kernels fail in other ways.
        """
        batch, instances = (3_072, 24) if self.cuda else (4, 2)
        pairs = (f"dataset.batch_size={batch}", f"dataset.num_instances={instances}", "dataset.validation=none")
        command = [*TOOL, "train", "-e", self.spec, f"results_dir={self.work / 'large'}", *pairs]
        if self.cuda:
            pattern = r"(?i)memory.*batch_size|batch_size.*memory"
            return self.commands.require_error("memory", command, limit, (1, 2, 3), pattern), {}
        self.commands.require("memory", command, limit)
        return "not tried on a CPU", {}


def losses_of(err: str) -> list[str]:
    """Return the lines of the epochs that a training printed.

    Raises:
        Failed: There is no epoch, or a loss is not finite.
    """
    lines = re.findall(r"^epoch \d+/.*$", err, re.MULTILINE)
    if not lines or re.search(r"loss (nan|inf)", err):
        raise Failed(f"no epoch, or a loss that is not finite: {last_line(err)}")
    return lines
