"""Arrays and tensors between the host and a model's device, without waiting for the device."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["HostCopy", "to_pinned", "to_device"]


def to_pinned(array: np.ndarray, device: torch.device) -> Tensor:
    """A tensor of an array, in page-locked memory where the device is a GPU, which copies it by itself from there."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """A tensor on a device of an array, or of what `to_pinned` returned.

    A GPU copies it when its earlier work is done, while this process continues. A copy from ordinary memory would make
    the process wait for all that the GPU still has to do.
    """
    tensor = values if isinstance(values, Tensor) else to_pinned(values, device)
    return tensor.to(device, non_blocking=True)


class HostCopy:
    """Values of a tensor on their way to the host.

    Reading them waits for the device to compute them, and not for the work that it was given afterwards.

    Args:
        tensor: On any device; later changes of it do not change the copy.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._ready = None
        if tensor.is_cuda:
            self._values = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._values.copy_(tensor, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record(torch.cuda.current_stream(tensor.device))
        else:
            self._values = tensor.clone()

    def read(self) -> list[float]:
        """The values of a tensor with one dimension."""
        if self._ready is not None:
            self._ready.synchronize()
        return list(self._values.tolist())
