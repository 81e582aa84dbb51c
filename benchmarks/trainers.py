"""Training steps of reid-tune and of plain PyTorch on the same decoded images, batches and losses."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from reid_tune.config.experiment import Experiment
from reid_tune.data.transfer import to_device
from reid_tune.losses.training_loss import TrainingLoss
from reid_tune.modeling.network import build_seeded_network
from reid_tune.training.determinism import configure_kernels
from reid_tune.training.image_sets import TrainingImages
from reid_tune.training.pipeline import Batch, training_batches
from reid_tune.training.state import create_or_resume

__all__ = ["PlainTrainer", "ReidTuneTrainer", "Trainer"]

# Trains for a number of steps, and yields after each.
Trainer = Callable[[int], Iterator[None]]


class ReidTuneTrainer:
    """Run of reid-tune, with the steps of its loop."""

    def __init__(self, experiment: Experiment, folder: Path, device: torch.device) -> None:
        self.run = create_or_resume(experiment, folder, device, None)

    def __call__(self, count: int) -> Iterator[None]:
        with configure_kernels(self.run.experiment.train, self.run.device), self.batches(count) as batches:
            for batch in batches:
                self.run.step(*self.run.prepare_inputs(batch))
                yield

    def train_on_one_batch(self, count: int) -> Iterator[None]:
        """Train on the same batch in every step, without an input pipeline."""
        with configure_kernels(self.run.experiment.train, self.run.device), self.batches(1) as batches:
            images, labels = self.run.prepare_inputs(next(batches))
            for _ in range(count):
                self.run.step(images, labels)
                yield

    @contextmanager
    def batches(self, count: int) -> Iterator[Iterator[Batch]]:
        """Yield an iterator over the first batches of the run, as its loop draws and reads them."""
        run = self.run
        epochs = range(math.ceil(count / run.data.sampler.steps_per_epoch))
        with training_batches(run.experiment, run.data, self.run.image_source, run.device, epochs) as batches:
            yield islice(batches, count)

    def time_stages(self, batch: Batch) -> dict[str, float]:
        """Return the milliseconds of each stage of a step, with the run's kernels; waits for the device after each."""
        step, now = self.run.step, common.clock(self.run.device)
        names, times = [], [now()]

        def end_stage(name: str) -> None:
            names.append(name)
            times.append(now())

        with configure_kernels(self.run.experiment.train, self.run.device):
            images, labels = self.run.image_source.load(batch.images), to_device(batch.labels, self.run.device)
            end_stage("to the device")
            images = self.run.data.augmentation.apply(images, batch.augmentation_params)
            end_stage("augmentation")
            features, logits = step.module(images)
            end_stage("forward")
            loss = torch.stack(list(step.losses(features, logits, labels).values())).sum()
            end_stage("losses")
            step.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            end_stage("backward")
            step.optimizer.step()
            end_stage("optimizer")
        return dict(zip(names, 1000 * np.diff(times), strict=True))

    def count_flops(self) -> float:
        """Return the floating-point operations of the products of one step, forward and backward."""
        with FlopCounterMode(display=False) as counter, self.batches(1) as batches:
            self.time_stages(next(batches))
        return float(counter.get_total_flops())


class PlainTrainer:
    """Plain PyTorch: float32, eager, NCHW, one image and one parameter at a time."""

    def __init__(self, experiment: Experiment, data: TrainingImages, device: torch.device, workers: int) -> None:
        optim = experiment.train.optim
        self.data, self.device, self.workers = data, device, workers
        self.network = build_seeded_network(experiment.model, len(data.identities), 0).to(device)
        self.losses = TrainingLoss(experiment, len(data.identities), self.network.dimension)
        settings: dict[str, Any] = {"lr": optim.base_lr, "weight_decay": optim.weight_decay}
        if optim.name == "SGD":
            settings["momentum"] = optim.momentum
        optimizer_class = getattr(torch.optim, optim.name)
        self.optimizer = optimizer_class(self.network.parameters(), foreach=False, fused=False, **settings)
        images = torch.from_numpy(data.images[:]).permute(0, 3, 1, 2).contiguous()
        self.dataset = _Transformed(images, torch.from_numpy(data.labels), common.transforms(experiment))

    def __call__(self, count: int) -> Iterator[None]:
        order = [rows.tolist() for rows in common.batches(self.data, count)]
        for images, labels in DataLoader(self.dataset, batch_sampler=order, num_workers=self.workers):
            images, labels = images.to(self.device), labels.to(self.device)
            features = self.network.features(images)
            parts = self.losses(features, self.network.logits(features), labels)
            self.optimizer.zero_grad()
            torch.stack(list(parts.values())).sum().backward()
            self.optimizer.step()
            yield


class _Transformed(TensorDataset):
    """Images, transformed when they are read, and labels."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        super().__init__(images, labels)
        self.transform = transform

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, label = super().__getitem__(index)
        return self.transform(image), label
