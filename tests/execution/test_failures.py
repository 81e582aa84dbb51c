import errno
from typing import Any

import pytest
import torch

from reid_tune.config.experiment import Experiment
from reid_tune.errors import (
    InfrastructureError,
    InputError,
    NonFiniteError,
    OutOfMemoryError,
    UnsupportedOperationError,
)
from reid_tune.execution.failures import Failure, classify_error, failure_from_report, failure_to_report, max_retries
from reid_tune.training.memory import translate_memory_errors


def _too_much_memory() -> None:
    torch.empty(1 << 60)


def test_a_failed_allocation_of_the_cpu_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        _too_much_memory()
    assert classify_error(caught.value).kind == "out_of_memory"


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"), "out_of_memory", "2 GiB."),
        (MemoryError(), "out_of_memory", "out of memory"),
        (OutOfMemoryError("out of memory: GPU 0 with 2 GiB."), "out_of_memory", "GPU 0 with 2 GiB."),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `f`"), "out_of_memory", "ALLOC_FAILED"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory", "CUDNN_STATUS_ALLOC_FAILED"),
        (torch.AcceleratorError("CUDA error: out of memory\nmore"), "out_of_memory", "CUDA error: out of memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "error", "illegal memory access"),
        (KeyError("out of memory"), "error", "KeyError"),
        (NonFiniteError("the loss is not finite in epoch 1, step 3: lower it."), "non_finite", "lower it."),
        (UnsupportedOperationError("train.deterministic = true has no kernel."), "invalid", "has no kernel."),
        (InputError("no such folder."), "invalid", "no such folder."),
        (OSError(errno.ENOSPC, "No space left on device", "x.pth"), "infrastructure", "No space left"),
        (OSError(errno.EROFS, "Read-only file system", "x.pth"), "infrastructure", "Read-only file system"),
        (InfrastructureError("cannot write x: No space left."), "infrastructure", "cannot write x"),
        (OSError(errno.EACCES, "Permission denied", "x.pth"), "error", "PermissionError: "),
        (KeyError("x"), "error", "KeyError: 'x'"),
        (ValueError(), "error", "ValueError: "),
    ],
)
def test_kinds_of_failures(error: BaseException, kind: str, reason: str) -> None:
    failure = classify_error(error)
    assert failure.kind == kind and reason in failure.reason and "\n" not in failure.reason


@pytest.mark.parametrize(("shared", "retries"), [(True, 1), (False, 0)])
def test_memory_that_runs_out_in_a_training_is_retried_where_the_gpu_was_shared(shared: bool, retries: int) -> None:
    with pytest.raises(OutOfMemoryError) as caught, translate_memory_errors(Experiment(), torch.device("cpu")):
        _too_much_memory()
    failure = classify_error(caught.value)
    assert failure == Failure("out_of_memory", str(caught.value)) and "lower dataset.batch_size" in failure.reason
    assert max_retries(failure.kind, shared) == retries


def test_a_failure_travels_in_a_report() -> None:
    failure = Failure("out_of_memory", "out of memory: 2 GiB")
    assert failure_from_report(failure_to_report(failure)) == failure


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"epoch": 2, "loss": 1.0, "mAP": 0.5, "queries": 3}, None),
        ({"epoch": 2, "loss": float("nan"), "mAP": 0.5}, "loss is nan in epoch 2"),
        ({"epoch": 3, "loss": float("inf"), "mAP": float("nan")}, "loss is inf, mAP is nan in epoch 3"),
    ],
)
def test_values_that_are_not_finite_fail_a_run(metrics: dict[str, Any], reason: str | None) -> None:
    assert failure_from_report(metrics) == (Failure("non_finite", reason) if reason else None)


def test_only_failures_that_may_not_happen_again_are_retried() -> None:
    kinds = ("out_of_memory", "non_finite", "invalid", "lost_worker", "timeout", "infrastructure", "error")
    assert [max_retries(kind, shared=False) for kind in kinds] == [0, 0, 0, 2, 1, 0, 0]
    assert [max_retries(kind, shared=True) for kind in kinds] == [1, 0, 0, 2, 1, 0, 0]
