"""The memory of a GPU that a run may use where it has a share of the GPU.

Imports nothing heavy: drivers import this module too.
"""

from reid_tune.errors import InputError

__all__ = ["DEFAULT_CUDA_CONTEXT", "limit_memory", "memory_fraction"]

_GIB = 1024**3
# Bytes that CUDA takes in each process outside of PyTorch's allocator, where the probe could not measure them.
DEFAULT_CUDA_CONTEXT = _GIB // 2


def memory_fraction(share: float, total: int, context: int) -> float:
    """The fraction of a GPU's memory that PyTorch's allocator may take in a process with a share of the GPU.

    Args:
        share: Of the GPU, at most 1.
        total: Memory of the GPU in bytes.
        context: Bytes that CUDA takes in the process outside of the allocator.

    Raises:
        InputError: the share is not larger than the context.
    """
    fraction = share - context / total
    if fraction <= 0:
        raise InputError(
            f"resources.gpus_per_worker = {share:g}: of a GPU with {total / _GIB:.1f} GiB that is "
            f"{share * total / _GIB:.2f} GiB, and CUDA itself takes {context / _GIB:.2f} GiB in each process: raise it."
        )
    return fraction


def limit_memory(share: float, context: int) -> None:
    """Hold PyTorch to this share of this process's first GPU, less the context; a whole GPU is not limited.

    Raises:
        InputError: see `memory_fraction`.
    """
    import torch

    if share < 1:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(memory_fraction(share, total, context), 0)
