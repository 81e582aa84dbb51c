"""Choice of PyTorch's kernels: whether they are deterministic, and how precisely they multiply."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reid_tune.config.train import Train
from reid_tune.errors import UnsupportedOperationError
from reid_tune.evaluation.distances import fix_cublas_workspace

__all__ = ["configure_kernels"]

# cuDNN's benchmark times all its algorithms in the first steps. The number of steps from which that pays is not
# measured yet.
_BENCHMARK_STEPS = 500


@contextmanager
def configure_kernels(train: Train, device: torch.device, steps: int | None = None) -> Iterator[None]:
    """Choose kernels by `train.deterministic`, `train.cudnn` and `train.tf32`; restore the earlier choice at the end.

    Args:
        train: Section `train` of the spec.
        device: Device of the run; on a CPU, products stay in true float32.
        steps: Minimum number of steps of the run. With fewer than 500 cuDNN's benchmark would not pay and is off; with
            None the spec alone decides.

    Raises:
        UnsupportedOperationError: An operation of the network has no deterministic kernel on this device.
    """
    cudnn = torch.backends.cudnn
    previous_choice = (torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic)
    previous_precision = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    if train.deterministic:
        fix_cublas_workspace()
    is_worthwhile = steps is None or steps >= _BENCHMARK_STEPS
    _choose(
        train.deterministic,
        train.cudnn.benchmark and is_worthwhile and not train.deterministic,
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
        _choose(*previous_choice)
        _set_precision(*previous_precision)


def _choose(algorithms: bool, benchmark: bool, deterministic: bool) -> None:
    torch.use_deterministic_algorithms(algorithms)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic


def _set_precision(products: str, tf32_convolutions: bool) -> None:
    # With the functions that `evaluation.distances.full_precision` uses: PyTorch rejects a mixture of old and new ones.
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = tf32_convolutions
