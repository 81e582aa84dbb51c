"""What a task is about to use, in one line."""

from collections.abc import Sequence

import torch

from reid_tune.spec.experiment import Experiment

__all__ = ["run_plan"]


def run_plan(experiment: Experiment, task: str, devices: Sequence[torch.device]) -> str:
    """Devices, threads and arithmetic of a task; `devices` are its workers'."""
    parts = [_workers(devices), f"{experiment.dataset.num_workers} decoding thread(s)"]
    if task == "train":
        train = experiment.train
        parts.append(train.precision)
        if train.deterministic:
            parts.append("deterministic")
        elif any(device.type == "cuda" for device in devices):
            cudnn = train.cudnn
            parts.append(f"cuDNN benchmark {cudnn.benchmark}, deterministic {cudnn.deterministic}")
    return f"{task}: {', '.join(parts)}"


def _workers(devices: Sequence[torch.device]) -> str:
    if devices[0].type == "cuda":
        return f"GPU {', '.join(str(device.index) for device in devices)}"
    return "no GPU, the CPU" if len(devices) == 1 else f"no GPU, {len(devices)} processes on the CPU"
