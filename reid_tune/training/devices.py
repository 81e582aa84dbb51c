"""Devices of a task."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError

__all__ = ["background_thread", "default_device", "parse_device", "task_devices", "worker_devices"]


def background_thread(name: str, device: torch.device) -> ThreadPoolExecutor:
    """Return an executor with one thread that uses this device; by default CUDA would use the first GPU.

    Args:
        name: Prefix of the thread's name.
        device: Device of the thread's CUDA calls.
    """
    if device.type != "cuda":
        return ThreadPoolExecutor(1, thread_name_prefix=name)
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=torch.cuda.set_device, initargs=(device,))


def default_device() -> torch.device:
    """Return the first GPU that this process may use, or the CPU if there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def worker_devices(gpus: Sequence[int], key: str) -> list[torch.device]:
    """Return a device for each worker: the GPUs with these indices, or the CPU for each if there is no GPU.

    Args:
        gpus: Indices of the GPUs, `GpuSelection.gpus`.
        key: Field of the spec with the indices, for the error.

    Raises:
        InputError: The machine has GPUs, but lacks one of these.
    """
    if not torch.cuda.is_available():
        return [torch.device("cpu")] * len(gpus)
    count = torch.cuda.device_count()
    if missing := [index for index in gpus if index >= count]:
        raise InputError(f"{key} asks for GPU {missing[0]}, but this machine has {count}, numbered from 0.")
    return [torch.device("cuda", index) for index in gpus]


def task_devices(experiment: Experiment, task: str) -> list[torch.device]:
    """Return a device for each worker of a task, from `num_gpus` and `gpu_ids` of its section of the spec.

    Args:
        experiment: The spec.
        task: Name of the section, such as train.

    Raises:
        InputError: The machine has GPUs, but lacks one of these; the message names the field that decides.
    """
    section = getattr(experiment, task)
    if section.gpus != section.gpu_ids and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if section.num_gpus > count:
            raise InputError(
                f"{task}.num_gpus = {section.num_gpus}, but this machine has {count} GPU{'s' if count > 1 else ''}: "
                f"set it to {count} at most."
            )
    return worker_devices(section.gpus, f"{task}.gpu_ids")


def parse_device(name: str) -> torch.device:
    """Return the device of a name: cpu, cuda, cuda:N, or auto for `default_device`.

    Raises:
        InputError: The name is not one of these, or this machine lacks the device.
    """
    if name == "auto":
        return default_device()
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise InputError(f"--device {name} is not one of auto, cpu, cuda and cuda:N.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: this machine has no GPU; omit the option.")
    return worker_devices([int(index or 0)], "--device")[0] if kind == "cuda" else torch.device("cpu")
