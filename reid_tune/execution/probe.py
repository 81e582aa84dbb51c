"""The probe: twenty steps of the spec itself, to know what runs will cost and that they can begin.

Imports nothing heavy: drivers import this module too.
"""

import resource
import tempfile
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from math import isfinite
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from reid_tune.errors import InfrastructureError, InputError, RunFailedError
from reid_tune.execution.failures import classify_error
from reid_tune.execution.step_memory import GpuMemory, estimate_largest_batch, half_batch, measure_step_peak
from reid_tune.journal.costs import EpochTiming
from reid_tune.search_space.load import SweepConfig
from reid_tune.training.compiler import limit_compile_processes, require_compiler
from reid_tune.training.memory import memory_errors

if TYPE_CHECKING:
    import numpy as np
    import torch

    from reid_tune.config.experiment import Experiment
    from reid_tune.execution.placement import Placement
    from reid_tune.training.run import Run

__all__ = ["ProbeResult", "measure_training", "run_probe"]

STEPS = 20
_WARM = 5  # first steps, in which kernels are chosen and memory is taken
_EMBEDDED = 512
_OF_THE_SPEC = ("out_of_memory", "non_finite", "invalid")


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found; memory in bytes.

    Attributes:
        decoding: Seconds until the images were in the cache, which later runs find there.
        start: Seconds of a start: process, imports, data, network, and what the first steps take more than others.
        step: Seconds of a step.
        steps: Steps of an epoch.
        validation: Seconds of a validation.
        memory: The most that the process had resident.
        gpu_memory: The most that PyTorch reserved on its GPU, 0 without one.
        gpu_context: What the process took of its GPU outside of PyTorch's allocator, 0 without one.
        step_memory: The most that tensors took on the GPU in a step, 0 without one and with `train.cuda_graphs`.
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
        """By name, as plain data."""
        return asdict(self)

    def pace(self, experiment: "Experiment", levels: Collection[int] = ()) -> EpochTiming:
        """The pace of a run that validates at these epochs, beside those of `validation_interval` and the last one."""
        interval, last = experiment.train.validation_interval, experiment.train.num_epochs
        validations = sum(epoch % interval == 0 or epoch == last or epoch in levels for epoch in range(1, last + 1))
        return EpochTiming(self.start, self.steps * self.step + self.validation * validations / last)


def run_probe(sweep: SweepConfig, placement: "Placement", workers: int) -> ProbeResult:
    """Take twenty steps of the spec itself as a trial would, on one worker in a process of its own.

    A run of several workers is measured by one of them on its share of the batch: without the others, whose gradients
    it would wait for, it is somewhat faster than in a run. A GPU is waited for behind each step, which a run does not
    do: there it is somewhat slower. Nothing is written but the image cache.

    Raises:
        InputError: the spec itself, trial 0, cannot be trained, and why.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

    held = {"num_cpus": placement.cpus, "num_gpus": placement.gpus, "resources": dict(placement.custom)}
    worker = ray.remote(**held, max_retries=0, max_calls=1)(_work)
    spec = sweep.experiment.model_dump(mode="json", exclude={"encryption_key"})
    begun = time.perf_counter()
    try:
        measured, busy = ray.get(worker.remote(spec, placement.cpus, placement.gpus, workers))
    except RayTaskError as error:
        raise _judged(sweep, error.cause) from None
    except (OutOfMemoryError, WorkerCrashedError):
        raise _untrainable(sweep, "its process was killed, most likely because memory ran out.") from None
    except RayError as error:
        raise InfrastructureError(f"the probe was lost: {str(error).strip().splitlines()[-1]}") from None
    return replace(measured, start=max(0.0, time.perf_counter() - begun - busy))


def _judged(sweep: SweepConfig, error: Exception) -> Exception:
    """The error to raise for one of the worker."""
    failure = classify_error(error)
    return _untrainable(sweep, failure.reason) if failure.kind in _OF_THE_SPEC else error


def _untrainable(sweep: SweepConfig, reason: str) -> InputError:
    return InputError(f"{sweep.file.spec}: the spec itself, trial 0 of the sweep, cannot be trained: {reason}")


def _work(spec: dict[str, Any], threads: int, gpus: float, workers: int) -> tuple[ProbeResult, float]:
    import torch

    from reid_tune.config.experiment import Experiment

    torch.set_num_threads(threads)
    limit_compile_processes(threads)
    experiment = Experiment.model_validate(spec)
    if not gpus:
        return measure_training(experiment, torch.device("cpu"), workers)
    return measure_training(experiment, torch.device("cuda", 0), workers, GpuMemory(gpus))


def measure_training(
    experiment: "Experiment", device: "torch.device", workers: int, gpu: GpuMemory | None = None
) -> tuple[ProbeResult, float]:
    """Measure in this process.

    Args:
        gpu: The memory of the device where that is a GPU.

    Returns:
        What was found, without the start, and the seconds of this call that were no part of a start.

    Raises:
        InputError: data, spec or pretrained weights are unusable, the machine lacks a compiler, or the share of a GPU
            is too small.
        RunFailedError: the loss or the features are not finite, or memory ran out.
    """
    from reid_tune.training.determinism import kernels
    from reid_tune.training.run import begin, require_shares

    require_shares(experiment, workers)
    if workers > 1:  # Only runs of one worker use CUDA graphs.
        train = experiment.train.model_copy(update={"cuda_graphs": False})
        experiment = experiment.model_copy(update={"train": train})
    require_compiler(experiment, device.type)
    decoding = _decode(experiment)
    with (
        memory_errors(experiment, device),
        kernels(experiment.train, device),
        tempfile.TemporaryDirectory(prefix="reid-tune-") as folder,
    ):
        run = begin(experiment, Path(folder), device, None)
        step = median(_steps(run, workers)[_WARM:])
        validation, validating = _validate(run)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        measured = ProbeResult(decoding, 0.0, step, run.data.sampler.steps_per_epoch, validation, memory, 0)
        begun = time.perf_counter()
        if gpu:
            measured = _with_gpu_memory(measured, run, workers, gpu)
    return measured, decoding + STEPS * step + validating + time.perf_counter() - begun


def _with_gpu_memory(measured: ProbeResult, run: "Run", workers: int, gpu: GpuMemory) -> ProbeResult:
    """What was measured, with what concerns the GPU's memory; the steps of the half batch come last of all."""
    import torch

    def step(images: int) -> None:
        _step(run, 0, 0, next(iter(run.data.sampler.epoch(0)))[:images:workers])

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
        measured,
        gpu_memory=reserved,
        gpu_context=gpu.context(),
        step_memory=peaks.get(batch, 0),
        largest_batch=estimate_largest_batch(peaks, available, multiple) if half in peaks else 0,
    )


def _decode(experiment: "Experiment") -> float:
    """Seconds until the cache has the images."""
    from reid_tune.training.data import evaluation_images, training_images
    from reid_tune.training.subsets import split_records

    begun, split = time.perf_counter(), split_records(experiment)
    training_images(experiment, split.train)
    evaluation_images(experiment, split.query, split.gallery)
    return time.perf_counter() - begun


def _steps(run: "Run", workers: int) -> list[float]:
    """Seconds of each step; where an epoch has fewer, those of the next epochs follow."""
    from reid_tune.optim.schedule import set_learning_rate

    train, sampler = run.experiment.train, run.data.sampler
    set_learning_rate(run.optimizer, train.optim, 0, train.num_epochs, [])
    run.network.train()
    batches = ((epoch, *batch) for epoch in count() for batch in enumerate(sampler.epoch(epoch)))
    seconds = []
    for epoch, number, chosen in islice(batches, STEPS):
        begun = time.perf_counter()
        loss = _step(run, epoch, number, chosen[::workers])
        seconds.append(time.perf_counter() - begun)
        if not isfinite(loss):
            raise RunFailedError(f"the loss is {loss} in step {len(seconds)}.")
    return seconds


def _step(run: "Run", epoch: int, number: int, chosen: "np.ndarray") -> float:
    """The loss of a step on these images: every `workers`-th of a batch, so that all its identities are among them."""
    from reid_tune.data.transfer import to_pinned
    from reid_tune.training.pipeline import Batch

    data, experiment = run.data, run.experiment
    decisions = data.augmentation.draw(experiment.train.seed, epoch, number, experiment.dataset.batch_size)
    labels = to_pinned(data.labels[chosen], run.device)
    batch = Batch(run.source.read(chosen), labels, decisions.slice(0, len(chosen)))
    return float(run.step(*run.inputs(batch))["loss"])


def _validate(run: "Run") -> tuple[float, float]:
    """Seconds of a validation, of which a part of the images is embedded, and how long it took to know."""
    import numpy as np

    from reid_tune.evaluation.score import score
    from reid_tune.training.embed import features_of, network_embed

    images = run.validation
    if images is None:
        return 0.0, 0.0
    begun = time.perf_counter()
    some = network_embed(run.network, run.experiment)(images.images[:_EMBEDDED])
    embedding = time.perf_counter() - begun
    score(features_of(images, lambda crops: np.resize(some, (len(crops), some.shape[1]))), device=run.device)
    took = time.perf_counter() - begun
    return took + embedding * (len(images.images) / len(some) - 1), took
