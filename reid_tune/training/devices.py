"""The devices of a task."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError

__all__ = ["background_thread", "default_device", "worker_devices", "parse_device", "task_devices"]


def background_thread(name: str, device: torch.device) -> ThreadPoolExecutor:
    """A pool of one thread whose CUDA calls are on this device: by itself it would take the first GPU."""
    if device.type != "cuda":
        return ThreadPoolExecutor(1, thread_name_prefix=name)
    return ThreadPoolExecutor(1, thread_name_prefix=name, initializer=torch.cuda.set_device, initargs=(device,))


def default_device() -> torch.device:
    """The first GPU that this process may use, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def worker_devices(gpus: Sequence[int], key: str) -> list[torch.device]:
    """A device for each worker: the GPUs of these indices, or the CPU as many times where there is no GPU.

    Args:
        gpus: Resolved indices, `GpuSelection.gpus`.
        key: The spec's field that gave them, for the error.

    Raises:
        InputError: the machine has GPUs, but not one of these.
    """
    if not torch.cuda.is_available():
        return [torch.device("cpu")] * len(gpus)
    count = torch.cuda.device_count()
    if absent := [index for index in gpus if index >= count]:
        raise InputError(f"{key} asks for GPU {absent[0]}, but this machine has {count}, numbered from 0.")
    return [torch.device("cuda", index) for index in gpus]


def task_devices(experiment: Experiment, task: str) -> list[torch.device]:
    """A device for each worker of a task, by `num_gpus` and `gpu_ids` of its section of the spec.

    Raises:
        InputError: the machine has GPUs, but not these; the message names the field that counts.
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
    """The device of a name such as cpu, cuda or cuda:1; auto is `default_device`.

    Raises:
        InputError: it is none of these, or this machine does not have it.
    """
    if name == "auto":
        return default_device()
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise InputError(f"--device {name} is none of auto, cpu, cuda and cuda:N.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {name}: this machine has no GPU; leave it out.")
    return worker_devices([int(index or 0)], "--device")[0] if kind == "cuda" else torch.device("cpu")
