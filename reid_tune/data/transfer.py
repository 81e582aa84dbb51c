"""Transfer of arrays and tensors between host and device, without waiting for the device."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["HostCopy", "to_device", "to_pinned"]


def to_pinned(array: np.ndarray, device: torch.device) -> Tensor:
    """Return a tensor of an array; for a GPU in page-locked memory, from which it can copy by itself."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy an array, or a tensor of `to_pinned`, to a device.

    A GPU copies it when its earlier work is done, while this process continues. A copy from ordinary memory would make
    the process wait for all earlier work of the GPU.
    """
    tensor = values if isinstance(values, Tensor) else to_pinned(values, device)
    return tensor.to(device, non_blocking=True)


class HostCopy:
    """Asynchronous copy of a tensor to the host.

    Reading it waits until the device has computed the tensor, but not for later work of the device.

    Args:
        tensor: Tensor on any device; later changes of it do not change the copy.
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
        """Return the values of a one-dimensional tensor."""
        if self._ready is not None:
            self._ready.synchronize()
        return list(self._values.tolist())
