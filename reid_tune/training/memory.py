"""Out-of-memory errors: how they are recognised, and the message for the user.

Imports nothing heavy: processes that only supervise a run import this module too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reid_tune.errors import OutOfMemoryError

if TYPE_CHECKING:
    import torch

    from reid_tune.config.experiment import Experiment

__all__ = ["is_out_of_memory", "translate_memory_errors"]

# Texts of PyTorch, CUDA and its libraries, which raise RuntimeError or subclasses of it with them.
_OUT_OF_MEMORY_TEXTS = (
    "out of memory",  # the allocators of a GPU and of the driver
    "can't allocate memory",  # the allocator of the CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # cuBLAS finds no memory for its workspace
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
)
_GIB = 1024**3


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of PyTorch or Python means that memory ran out, on a GPU or on the machine."""
    if isinstance(error, MemoryError | OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


@contextmanager
def translate_memory_errors(experiment: "Experiment", device: "torch.device") -> Iterator[None]:
    """Replace out-of-memory errors of a training by one message with the batch, the memory and the remedy.

    Args:
        experiment: The spec.
        device: Device of the training.

    Raises:
        OutOfMemoryError: Memory ran out in the block.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        model, chunks = experiment.model, experiment.train.accumulate
        raise OutOfMemoryError(
            f"out of memory: {_describe_memory(device)} is not enough for dataset.batch_size = "
            f"{experiment.dataset.batch_size}"
            f"{f' in {chunks} chunks' if chunks > 1 else ''} at {model.input_height} x {model.input_width} pixels in "
            f"{experiment.train.precision}: lower dataset.batch_size, or set train.accumulate = {2 * chunks}, which "
            f"keeps the batch and its losses{_resident_hint(experiment, device)}."
        ) from None


def _resident_hint(experiment: "Experiment", device: "torch.device") -> str:
    if device.type != "cuda" or experiment.dataset.resident is False:
        return ""
    return "; dataset.resident = false leaves the images on the host"


def _describe_memory(device: "torch.device") -> str:
    if device.type != "cuda":
        return "this machine's memory"
    import torch

    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # After some errors the driver does not respond any more.
        return f"the memory of GPU {device.index or 0}"
    fraction = torch.cuda.get_per_process_memory_fraction(device)
    share = f", at most {fraction * total / _GIB:.1f} GiB for this run" if fraction < 1 else ""
    return f"GPU {device.index or 0} ({total / _GIB:.1f} GiB, {free / _GIB:.1f} GiB free{share})"
