"""What a task is about to use, in one line."""

from collections.abc import Sequence

import torch

from reid_tune.config.experiment import Experiment
from reid_tune.config.train import Train

__all__ = ["describe_run"]


def describe_run(experiment: Experiment, task: str, devices: Sequence[torch.device]) -> str:
    """Devices, threads and arithmetic of a task; `devices` are its workers'."""
    parts = [_workers(devices), f"{experiment.dataset.num_workers} decoding thread(s)"]
    if task == "train":
        parts += _training(experiment.train, gpu=devices[0].type == "cuda", workers=len(devices))
    return f"{task}: {', '.join(parts)}"


def _training(train: Train, *, gpu: bool, workers: int) -> list[str]:
    """Arithmetic, chunks and kernels of a training."""
    parts = [f"{train.precision} (TF32)" if train.precision == "fp32" and train.tf32 and gpu else train.precision]
    if train.accumulate > 1:
        parts.append(f"each worker's part of a batch in {train.accumulate} chunks")
    if train.cuda_graphs:
        parts.append("CUDA graphs" if gpu and workers == 1 else "no CUDA graphs, which need one worker on a GPU")
    if train.deterministic:
        parts.append("deterministic")
    elif gpu:
        parts.append(f"cuDNN benchmark {train.cudnn.benchmark}, deterministic {train.cudnn.deterministic}")
    return parts


def _workers(devices: Sequence[torch.device]) -> str:
    if devices[0].type == "cuda":
        return f"GPU {', '.join(str(device.index) for device in devices)}"
    return "no GPU, the CPU" if len(devices) == 1 else f"no GPU, {len(devices)} processes on the CPU"
