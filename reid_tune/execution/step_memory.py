"""What a step takes of a GPU's memory, and the largest batch that fits.

Imports nothing heavy: drivers import this module too.
"""

import os
from collections.abc import Callable, Mapping

from reid_tune.execution.gpu_share import DEFAULT_CUDA_CONTEXT, limit_memory, memory_fraction

__all__ = ["GpuMemory", "half_batch", "estimate_largest_batch", "measure_step_peak"]

_REPEATS = 2  # of a step: kernels are chosen in the first, its memory is that of the last


class GpuMemory:
    """The memory of this process's first GPU; to be made before CUDA begins in the process, and before other runs.

    Args:
        share: Of the GPU; PyTorch is held to it.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._before = _used()
        limit_memory(share, DEFAULT_CUDA_CONTEXT)

    def context(self) -> int:
        """Bytes that this process takes outside of PyTorch's allocator: CUDA's context, its kernels and libraries."""
        import torch

        now = _used()
        if self._before is None or now is None:
            return DEFAULT_CUDA_CONTEXT
        # Less than half of the usual size means that another process has given memory back meanwhile.
        return max(DEFAULT_CUDA_CONTEXT // 2, now - self._before - torch.cuda.memory_reserved(0))

    def available(self) -> int:
        """Bytes that PyTorch may take in a run with this share.

        Raises:
            InputError: the share is not larger than the context.
        """
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        return int(total * memory_fraction(min(self._share, 1), total, self.context()))


def measure_step_peak(step: Callable[[int], None], images: int) -> int:
    """The most bytes that tensors take on the first GPU in a step on so many images."""
    import torch

    for _ in range(_REPEATS):
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
    """The largest batch whose step fits, on the line through the peaks of two batches; an estimate.

    Args:
        peaks: Bytes of a step by its batch, of two batches.
        available: Bytes that may be taken.
        multiple: What the batch must be a multiple of.

    Returns:
        0 where not even one multiple fits, or the memory did not grow with the batch, so that nothing follows.
    """
    (small, low), (large, high) = sorted(peaks.items())
    if high <= low:
        return 0
    most = large + (available - high) * (large - small) // (high - low)
    return max(0, most // multiple * multiple)


def _used() -> int | None:
    """Bytes that all processes use of this process's first GPU, by NVML; None where that does not tell."""
    import pynvml

    name = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        by_index = name.isdigit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(name)) if by_index else pynvml.nvmlDeviceGetHandleByUUID(name)
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return None
