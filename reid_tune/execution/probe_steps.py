"""The measurements of the probe: twenty steps and a validation of the spec itself.

Imports nothing heavy: drivers import this module too.
"""

import resource
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING

from reid_tune.config.checks import require_divisible_batch
from reid_tune.errors import RunFailedError
from reid_tune.execution.gpu_memory import GpuMemory, estimate_largest_batch, half_batch, measure_step_peak
from reid_tune.journal.costs import EpochTiming
from reid_tune.storage.temporary_folder import temporary_folder
from reid_tune.training.compiler import require_compiler
from reid_tune.training.memory import translate_memory_errors

if TYPE_CHECKING:
    import numpy as np
    import torch

    from reid_tune.config.experiment import Experiment
    from reid_tune.training.state import TrainingState

__all__ = ["ProbeResult", "measure_training"]

STEPS = 20
_WARM_UP = 5  # first steps, in which kernels are chosen and memory is reserved
_EMBEDDED = 512


@dataclass(frozen=True)
class ProbeResult:
    """The measurements of a probe.

    Attributes:
        decoding: Seconds until the images were in the cache, where later runs find them.
        start: Seconds of a start: process, imports, data, network, and what the first steps take longer than others.
        step: Seconds of a step.
        steps: Steps of an epoch.
        validation: Seconds of a validation.
        memory: Peak resident memory of the process, in bytes.
        gpu_memory: Bytes that PyTorch reserved on its GPU at most, 0 without one.
        gpu_context: Bytes that the process used of its GPU outside of PyTorch's allocator, 0 without one.
        step_memory: Bytes that tensors used on the GPU in a step at most, 0 without one and with `train.cuda_graphs`.
        largest_batch: Estimate of the largest batch whose step fits, from the spec's batch and its half; 0 where
            nothing is estimated: without a GPU, with `train.compile` or `train.cuda_graphs`, which are for one size of
            batch, and where the half is too small.
    """

    decoding: float
    start: float
    step: float
    steps: int
    validation: float
    memory: int
    gpu_memory: int
    gpu_context: int = 0
    step_memory: int = 0
    largest_batch: int = 0

    def as_dict(self) -> dict[str, float]:
        """Return the values by name, as plain data."""
        return asdict(self)

    def epoch_timing(self, experiment: "Experiment", rung_epochs: Collection[int] = ()) -> EpochTiming:
        """Return the timing of a run of full length, with the mean share of its validations in each epoch.

        Args:
            experiment: Spec of the run, which validates every `train.validation_interval` epochs and at the last one.
            rung_epochs: Further epochs at which it validates.
        """
        interval, last = experiment.train.validation_interval, experiment.train.num_epochs
        validations = sum(epoch % interval == 0 or epoch in {last, *rung_epochs} for epoch in range(1, last + 1))
        return EpochTiming(self.start, self.steps * self.step + self.validation * validations / last)


def measure_training(
    experiment: "Experiment", device: "torch.device", workers: int, gpu: GpuMemory | None = None
) -> tuple[ProbeResult, float]:
    """Measure the steps and a validation of a spec in this process.

    Args:
        experiment: The spec.
        device: Device of the training.
        workers: Number of workers of a run; the steps are on one worker's share of the batch.
        gpu: The memory of the device where that is a GPU.

    Returns:
        The measurements, without the start, and the seconds of this call that are not part of a start.

    Raises:
        InputError: data, spec or pretrained weights are unusable, the machine lacks a compiler, or the share of a GPU
            is too small.
        RunFailedError: the loss or the features are not finite, or memory ran out.
    """
    from reid_tune.training.determinism import configure_kernels
    from reid_tune.training.state import create_or_resume

    require_divisible_batch(experiment, workers)
    if workers > 1:  # Only runs of one worker use CUDA graphs.
        train = experiment.train.model_copy(update={"cuda_graphs": False})
        experiment = experiment.model_copy(update={"train": train})
    require_compiler(experiment, device.type)
    decoding = _decode_images(experiment)
    with (
        translate_memory_errors(experiment, device),
        configure_kernels(experiment.train, device),
        temporary_folder() as folder,
    ):
        run = create_or_resume(experiment, folder, device, None)
        step = median(_time_steps(run, workers)[_WARM_UP:])
        validation, validation_probe = _time_validation(run)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result = ProbeResult(decoding, 0.0, step, run.data.sampler.steps_per_epoch, validation, memory, 0)
        start = time.perf_counter()
        if gpu:
            result = _add_gpu_memory(result, run, workers, gpu)
    return result, decoding + STEPS * step + validation_probe + time.perf_counter() - start


def _add_gpu_memory(result: ProbeResult, run: "TrainingState", workers: int, gpu: GpuMemory) -> ProbeResult:
    """Return the result with the GPU's memory; the steps of the half batch come last of all."""
    import torch

    def step(images: int) -> None:
        _train_step(run, 0, 0, next(iter(run.data.sampler.epoch(0)))[:images:workers])

    reserved = torch.cuda.max_memory_reserved(0)
    dataset, train = run.experiment.dataset, run.experiment.train
    batch, multiple = dataset.batch_size, dataset.num_instances * workers * train.accumulate
    run.network.train()
    # The memory of CUDA graphs is not that of tensors.
    peaks = {} if train.cuda_graphs else {batch: measure_step_peak(step, batch)}
    if (half := half_batch(batch, multiple)) and not (train.compile or train.cuda_graphs):
        peaks[half] = measure_step_peak(step, half)
    available = gpu.available()
    return replace(
        result,
        gpu_memory=reserved,
        gpu_context=gpu.context(),
        step_memory=peaks.get(batch, 0),
        largest_batch=estimate_largest_batch(peaks, available, multiple) if half in peaks else 0,
    )


def _decode_images(experiment: "Experiment") -> float:
    """Have the images in the cache, and return the seconds until they are there."""
    from reid_tune.training.data_split import load_split
    from reid_tune.training.image_sets import load_evaluation_images, load_training_images

    start, split = time.perf_counter(), load_split(experiment)
    load_training_images(experiment, split.train, split.folders)
    load_evaluation_images(experiment, split.query, split.gallery)
    return time.perf_counter() - start


def _time_steps(run: "TrainingState", workers: int) -> list[float]:
    """Seconds of each of `STEPS` steps; where an epoch has fewer, the steps of the next epochs follow."""
    from reid_tune.optim.schedule import set_learning_rate

    train, sampler = run.experiment.train, run.data.sampler
    set_learning_rate(run.optimizer, train.optim, 0, train.num_epochs, [])
    run.network.train()
    batches = ((epoch, *batch) for epoch in count() for batch in enumerate(sampler.epoch(epoch)))
    seconds = []
    for epoch, number, images in islice(batches, STEPS):
        start = time.perf_counter()
        loss = _train_step(run, epoch, number, images[::workers])
        seconds.append(time.perf_counter() - start)
        if not isfinite(loss):
            raise RunFailedError(f"the loss is {loss} in step {len(seconds)}.")
    return seconds


def _train_step(run: "TrainingState", epoch: int, number: int, images: "np.ndarray") -> float:
    """Train on images of a batch, every `workers`-th so that all its identities are among them, and return the loss."""
    import numpy as np

    from reid_tune.data.transfer import to_pinned
    from reid_tune.training.pipeline import Batch

    data, experiment = run.data, run.experiment
    params = data.augmentation.draw(experiment.train.seed, epoch, number, experiment.dataset.batch_size)
    labels = to_pinned(data.labels[images], run.device)
    params = params.slice(0, len(images))
    images = np.concatenate([images, images[params.patch_images % len(images)]])
    batch = Batch(run.image_source.read(images), labels, params)
    return float(run.step(*run.prepare_inputs(batch))["loss"])


def _time_validation(run: "TrainingState") -> tuple[float, float]:
    """Seconds of a validation, estimated from embedding a part of its images, and seconds that the estimate took."""
    import numpy as np

    from reid_tune.evaluation.score import score
    from reid_tune.training.embedding import compute_features, make_embed_function

    images = run.validation
    if images is None:
        return 0.0, 0.0
    start = time.perf_counter()
    features = make_embed_function(run.network, run.experiment)(images.images[:_EMBEDDED])
    embedding = time.perf_counter() - start
    score(
        compute_features(images, lambda crops: np.resize(features, (len(crops), features.shape[1]))), device=run.device
    )
    seconds = time.perf_counter() - start
    return seconds + embedding * (len(images.images) / len(features) - 1), seconds
