"""Arrays to a model's device, without waiting for the device."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["upload"]


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """A tensor of an array on a device; a GPU copies it when its earlier work is done, while this process goes on.

    A copy from ordinary memory would make the process wait for all that the GPU still has to do.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
