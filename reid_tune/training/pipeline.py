"""Batches of a run, drawn and read in a thread while the device trains on earlier ones."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reid_tune.config.experiment import Experiment
from reid_tune.data.augment.params import AugmentationParams
from reid_tune.data.image_cache.images import DecodedImages
from reid_tune.data.transfer import to_device, to_pinned
from reid_tune.training.devices import background_thread
from reid_tune.training.distributed import rank, world_size
from reid_tune.training.image_sets import TrainingImages

__all__ = ["Batch", "HostImages", "ImageSource", "ResidentImages", "make_image_source", "training_batches"]

# Batches that are prepared ahead of the loop. On a GPU they bridge the end of an epoch; the pixels of one need 13 MB.
_PREFETCH_GPU, _PREFETCH_CPU = 8, 2
_MAX_MEMORY_SHARE = 0.25  # of the free memory of a GPU, for `dataset.resident = auto`


class ImageSource(Protocol):
    """Decoded training images, on the host or on the device."""

    def read(self, rows: np.ndarray) -> Tensor:
        """Prepare images for `load` on the host, in any thread.

        Args:
            rows: Indices of the images, int64 [n].
        """

    def load(self, prepared: Tensor) -> Tensor:
        """Return prepared images on the device, uint8 [n, H, W, 3]."""


class HostImages:
    """Images in files that are mapped into the host's memory; every step copies pixels to the device."""

    def __init__(self, images: DecodedImages, device: torch.device) -> None:
        self._images, self._device = images, device

    def read(self, rows: np.ndarray) -> Tensor:
        return to_pinned(self._images.take(rows), self._device)

    def load(self, prepared: Tensor) -> Tensor:
        return to_device(prepared, self._device)


class ResidentImages:
    """Images in the device's memory; every step copies only their indices to the device."""

    def __init__(self, images: DecodedImages, device: torch.device) -> None:
        self._images = torch.empty(images.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(images), 4096):  # about 400 MB on the host at a time
            part = images[start : start + 4096]
            self._images[start : start + len(part)] = torch.from_numpy(part).to(device)

    def read(self, rows: np.ndarray) -> Tensor:
        return to_pinned(rows, self._images.device)

    def load(self, prepared: Tensor) -> Tensor:
        return self._images.index_select(0, to_device(prepared, self._images.device))


def make_image_source(images: DecodedImages, experiment: Experiment, device: torch.device) -> ImageSource:
    """Return the images as `dataset.resident` selects: on the device or on the host.

    With `auto` they are on a GPU if they need at most a quarter of its free memory.
    """
    resident = experiment.dataset.resident
    if device.type != "cuda" or resident is False:
        return HostImages(images, device)
    if resident == "auto" and np.prod(images.shape) > _MAX_MEMORY_SHARE * _free_memory(device):
        return HostImages(images, device)
    return ResidentImages(images, device)


def _free_memory(device: torch.device) -> float:
    """Return the bytes of a GPU's memory that this process may still allocate."""
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    return min(free, allowed - torch.cuda.memory_reserved(device))


@dataclass(frozen=True)
class Batch:
    """Data of one step of this worker, on the host.

    Attributes:
        images: This worker's images, then those that give a box to them, prepared by `ImageSource.read`.
        labels: Labels of the global batch, int64 [batch].
        augmentation_params: Parameters of the augmentation of this worker's images.
    """

    images: Tensor
    labels: Tensor
    augmentation_params: AugmentationParams


class _BatchReader:
    """Draws and reads batches; a batch depends only on the spec, the epoch and the step."""

    def __init__(self, experiment: Experiment, data: TrainingImages, source: ImageSource, device: torch.device) -> None:
        self._data, self._source, self._device = data, source, device
        self._seed, self._batch_size = experiment.train.seed, experiment.dataset.batch_size
        share = self._batch_size // world_size()
        self._share = slice(rank() * share, (rank() + 1) * share)
        self._epoch, self._rows = -1, np.empty((0, 0), np.int64)

    def __call__(self, epoch: int, step: int) -> Batch:
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._data.sampler.epoch(epoch)
        rows = self._rows[step]
        params = self._data.augmentation.draw(self._seed, epoch, step, self._batch_size)
        params = params.slice(self._share.start, self._share.stop)
        images = np.concatenate([rows[self._share], rows[params.patch_images]])
        return Batch(self._source.read(images), to_pinned(self._data.labels[rows], self._device), params)


@contextmanager
def training_batches(
    experiment: Experiment, data: TrainingImages, source: ImageSource, device: torch.device, epochs: range
) -> Iterator[Iterator[Batch]]:
    """Yield an iterator over the batches of all steps; its thread ends with the block.

    Args:
        experiment: The spec.
        data: Training images.
        source: Decoded training images, see `make_image_source`.
        device: Device of this worker.
        epochs: 0-based epochs.
    """
    read = _BatchReader(experiment, data, source, device)
    steps = ((epoch, step) for epoch in epochs for step in range(data.sampler.steps_per_epoch))
    prefetch = _PREFETCH_GPU if device.type == "cuda" else _PREFETCH_CPU
    pool = background_thread("batches", device)

    def batches() -> Iterator[Batch]:
        # CUDA graphs are recorded in the first step, in which no other thread may call the driver.
        for epoch, step in islice(steps, 1):
            yield pool.submit(read, epoch, step).result()
        pending: deque[Future[Batch]] = deque()
        for epoch, step in steps:
            pending.append(pool.submit(read, epoch, step))
            if len(pending) > prefetch:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    try:
        yield batches()
    finally:
        pool.shutdown(cancel_futures=True)
