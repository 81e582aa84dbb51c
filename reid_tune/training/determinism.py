"""How exactly torch's kernels repeat themselves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from reid_tune.errors import FailedRun
from reid_tune.spec.train import Train

__all__ = ["kernels"]


@contextmanager
def kernels(train: Train) -> Iterator[None]:
    """Choose kernels by `train.deterministic` and `train.cudnn`, and the process's own choice again at the end.

    Raises:
        FailedRun: an operation of the network has no deterministic kernel on this device.
    """
    cudnn = torch.backends.cudnn
    before = (torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic)
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself with a fixed workspace.
    _choose(
        train.deterministic,
        train.cudnn.benchmark and not train.deterministic,
        train.cudnn.deterministic or train.deterministic,
    )
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise FailedRun(f"train.deterministic = true cannot be kept here: {reason} Set it to false.") from error
    finally:
        _choose(*before)


def _choose(algorithms: bool, benchmark: bool, deterministic: bool) -> None:
    torch.use_deterministic_algorithms(algorithms)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic
