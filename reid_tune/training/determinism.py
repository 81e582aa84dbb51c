"""Which kernels PyTorch chooses: how exactly they repeat themselves, and how precisely they multiply."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reid_tune.config.train import Train
from reid_tune.errors import UnsupportedOperationError
from reid_tune.evaluation.distances import fix_cublas_workspace

__all__ = ["configure_kernels"]

# cuDNN's benchmark times all its algorithms in the first steps. From how many steps on that pays is not measured yet.
_BENCHMARK_STEPS = 500


@contextmanager
def configure_kernels(train: Train, device: torch.device, steps: int | None = None) -> Iterator[None]:
    """Choose kernels by `train.deterministic`, `train.cudnn` and `train.tf32`; restore the earlier choice at the end.

    Args:
        device: Where the run computes; on a CPU, products stay in true float32.
        steps: Steps that the run certainly takes; with fewer than 500 cuDNN's benchmark would not pay and is off. None
            leaves it to the spec.

    Raises:
        UnsupportedOperationError: an operation of the network has no deterministic kernel on this device.
    """
    cudnn = torch.backends.cudnn
    before = (torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic)
    precision_before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    if train.deterministic:
        fix_cublas_workspace()
    pays = steps is None or steps >= _BENCHMARK_STEPS
    _choose(
        train.deterministic,
        train.cudnn.benchmark and pays and not train.deterministic,
        train.cudnn.deterministic or train.deterministic,
    )
    if device.type == "cuda":
        _set_precision("high" if train.tf32 else "highest", train.tf32)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise UnsupportedOperationError(
            f"train.deterministic = true is not possible with this network on this device: {reason} "
            "Set train.deterministic = false."
        ) from error
    finally:
        _choose(*before)
        _set_precision(*precision_before)


def _choose(algorithms: bool, benchmark: bool, deterministic: bool) -> None:
    torch.use_deterministic_algorithms(algorithms)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic


def _set_precision(products: str, tf32_convolutions: bool) -> None:
    # By the functions that `evaluation.distances.full_precision` uses: PyTorch refuses a mixture of old and new ones.
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = tf32_convolutions
