"""The probe: twenty steps of the spec itself on Ray, which show what runs will cost and that they can start.

Imports nothing heavy: drivers import this module too.
"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.execution.failures import classify_error
from reid_tune.execution.gpu_memory import GpuMemory
from reid_tune.execution.probe_steps import ProbeResult, measure_training
from reid_tune.search_space.load import SweepConfig
from reid_tune.training.compiler import limit_compile_processes

if TYPE_CHECKING:
    from reid_tune.execution.placement import Placement

__all__ = ["run_probe"]

_SPEC_FAILURES = ("out_of_memory", "non_finite", "invalid")  # kinds of failures that the spec causes


def run_probe(sweep: SweepConfig, placement: "Placement", workers: int) -> ProbeResult:
    """Train the spec itself for twenty steps as a trial would, on one worker in a separate process.

    A run of several workers is measured by one of them on its share of the batch. Without the others, whose gradients
    it would wait for, it is somewhat faster than in a run. The probe waits for a GPU after each step, which a run does
    not do: there it is somewhat slower. Nothing is written but the image cache.

    Args:
        sweep: The sweep whose spec is probed.
        placement: CPUs and GPUs of the worker.
        workers: Number of workers of a trial.

    Raises:
        InputError: the spec itself, trial 0, cannot be trained, and why.
        InfrastructureError: the process of the probe was lost.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

    options = {"num_cpus": placement.cpus, "num_gpus": placement.gpus, "resources": dict(placement.custom)}
    worker = ray.remote(**options, max_retries=0, max_calls=1)(_measure)
    spec = sweep.experiment.model_dump(mode="json", exclude={"encryption_key"})
    start = time.perf_counter()
    try:
        result, seconds_measuring = ray.get(worker.remote(spec, placement.cpus, placement.gpus, workers))
    except RayTaskError as error:
        raise _error_of_worker(sweep, error.cause) from None
    except (OutOfMemoryError, WorkerCrashedError):
        raise _untrainable_error(sweep, "its process was killed, most likely because memory ran out.") from None
    except RayError as error:
        raise InfrastructureError(f"the probe was lost: {str(error).strip().splitlines()[-1]}") from None
    return replace(result, start=max(0.0, time.perf_counter() - start - seconds_measuring))


def _error_of_worker(sweep: SweepConfig, error: Exception) -> Exception:
    """Return the error to raise for an error of the worker: an `InputError` where the spec is the cause."""
    failure = classify_error(error)
    return _untrainable_error(sweep, failure.reason) if failure.kind in _SPEC_FAILURES else error


def _untrainable_error(sweep: SweepConfig, reason: str) -> InputError:
    return InputError(f"{sweep.file.spec}: the spec itself, trial 0 of the sweep, cannot be trained: {reason}")


def _measure(spec: dict[str, Any], threads: int, gpus: float, workers: int) -> tuple[ProbeResult, float]:
    import torch

    from reid_tune.config.experiment import Experiment

    torch.set_num_threads(threads)
    limit_compile_processes(threads)
    experiment = Experiment.model_validate(spec)
    if not gpus:
        return measure_training(experiment, torch.device("cpu"), workers)
    return measure_training(experiment, torch.device("cuda", 0), workers, GpuMemory(gpus))
