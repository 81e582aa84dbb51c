"""The memory of a GPU: the limit of a run with a share of it, what a step uses, and the largest batch that fits.

Imports nothing heavy: drivers import this module too.
"""

import os
from collections.abc import Callable, Mapping

from reid_tune.errors import InputError

__all__ = [
    "DEFAULT_CUDA_CONTEXT",
    "GpuMemory",
    "estimate_largest_batch",
    "half_batch",
    "limit_memory",
    "measure_step_peak",
    "memory_fraction",
]

_GIB = 1024**3
# Bytes that CUDA uses in each process outside of PyTorch's allocator, where the probe could not measure them.
DEFAULT_CUDA_CONTEXT = _GIB // 2
_STEP_REPEATS = 2  # kernels are chosen in the first step, the memory is that of the last


def memory_fraction(share: float, total: int, context: int) -> float:
    """Return the fraction of a GPU's memory that PyTorch's allocator may use in a process with a share of the GPU.

    Args:
        share: Share of the GPU, at most 1.
        total: Memory of the GPU in bytes.
        context: Bytes that CUDA uses in the process outside of the allocator.

    Raises:
        InputError: the share is not larger than the context.
    """
    fraction = share - context / total
    if fraction <= 0:
        raise InputError(
            f"resources.gpus_per_worker = {share:g}: of a GPU with {total / _GIB:.1f} GiB that is "
            f"{share * total / _GIB:.2f} GiB, and CUDA itself uses {context / _GIB:.2f} GiB in each process: raise it."
        )
    return fraction


def limit_memory(share: float, context: int) -> None:
    """Limit PyTorch to a share of this process's first GPU, less the context; a whole GPU is not limited.

    Args:
        share: Share of the GPU, at most 1.
        context: Bytes that CUDA uses in the process outside of PyTorch's allocator.

    Raises:
        InputError: see `memory_fraction`.
    """
    import torch

    if share < 1:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(memory_fraction(share, total, context), 0)


class GpuMemory:
    """The memory of this process's first GPU; to be made before CUDA begins in the process, and before other runs.

    Args:
        share: Share of the GPU to which PyTorch is limited.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._used_before = _used_bytes()
        limit_memory(share, DEFAULT_CUDA_CONTEXT)

    def context(self) -> int:
        """Bytes that this process uses outside of PyTorch's allocator: CUDA's context, its kernels and libraries."""
        import torch

        used_now = _used_bytes()
        if self._used_before is None or used_now is None:
            return DEFAULT_CUDA_CONTEXT
        # Less than half of the usual size means that another process has freed memory in the meantime.
        return max(DEFAULT_CUDA_CONTEXT // 2, used_now - self._used_before - torch.cuda.memory_reserved(0))

    def available(self) -> int:
        """Bytes that PyTorch may use in a run with this share.

        Raises:
            InputError: the share is not larger than the context.
        """
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        return int(total * memory_fraction(min(self._share, 1), total, self.context()))


def measure_step_peak(step: Callable[[int], None], images: int) -> int:
    """Return the most bytes that tensors use on the first GPU in a step on this number of images."""
    import torch

    for _ in range(_STEP_REPEATS):
        torch.cuda.synchronize(0)
        torch.cuda.reset_peak_memory_stats(0)
        step(images)
    torch.cuda.synchronize(0)
    return torch.cuda.max_memory_allocated(0)


def half_batch(batch: int, multiple: int) -> int:
    """Half of a batch, rounded down to a multiple; 0 where that is less than two multiples, too few to train on."""
    half = batch // 2 // multiple * multiple
    return half if half >= 2 * multiple else 0


def estimate_largest_batch(peaks: Mapping[int, int], available: int, multiple: int) -> int:
    """Estimate the largest batch whose step fits, on the line through the peaks of two batches.

    Args:
        peaks: Bytes of a step by its batch size, for two batch sizes.
        available: Bytes that may be used.
        multiple: Number of images of which the batch must be a multiple.

    Returns:
        The batch size; 0 where not even one multiple fits, or where the memory did not grow with the batch, so that
        nothing follows.
    """
    (small_batch, small_peak), (large_batch, large_peak) = sorted(peaks.items())
    if large_peak <= small_peak:
        return 0
    growth = large_peak - small_peak
    images = large_batch + (available - large_peak) * (large_batch - small_batch) // growth
    return max(0, images // multiple * multiple)


def _used_bytes() -> int | None:
    """Bytes that all processes use of this process's first GPU, by NVML; None where NVML does not tell."""
    import pynvml

    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        find_handle = pynvml.nvmlDeviceGetHandleByIndex if device.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
        handle = find_handle(int(device) if device.isdigit() else device)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return None
