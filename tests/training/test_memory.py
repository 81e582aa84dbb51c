"""Messages of exhausted memory and of a missing deterministic kernel."""

from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.errors import OutOfMemoryError, UnsupportedOperationError
from reid_tune.training.loop import train
from reid_tune.training.memory import is_out_of_memory, translate_memory_errors
from reid_tune.training.step import TrainingStep

from .conftest import Build, Recorder

CUDA_TEXT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB.\nSee documentation"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(CUDA_TEXT), True),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (MemoryError("Unable to allocate 3.1 GiB for an array"), True),
        (OutOfMemoryError("out of memory: a sentence."), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_ran_out(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_training_without_memory_ends_with_one_sentence(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    def exhausted(*_: Any) -> None:
        raise torch.OutOfMemoryError(CUDA_TEXT)

    monkeypatch.setattr(TrainingStep, "__call__", exhausted)
    with pytest.raises(OutOfMemoryError) as caught:
        train(build(train__accumulate=chunks), Recorder(), tmp_path)
    in_chunks = " in 2 chunks" if chunks == 2 else ""
    assert str(caught.value) == (
        f"out of memory: this machine's memory is not enough for dataset.batch_size = 16{in_chunks} at 32 x 16 pixels "
        f"in fp32: lower dataset.batch_size, or set train.accumulate = {2 * chunks}, which keeps the batch and its "
        "losses."
    )
    assert caught.value.status == 1


def test_the_sentence_names_the_gpu_and_its_memory(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's answers are stand-ins, without a GPU."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 0.25)
    with pytest.raises(OutOfMemoryError) as caught, translate_memory_errors(build(), torch.device("cuda", 1)):
        raise torch.OutOfMemoryError(CUDA_TEXT)
    assert str(caught.value).startswith(
        "out of memory: GPU 1 (80.0 GiB, 3.0 GiB free, at most 20.0 GiB for this run) is not enough for"
    )

    def broken(_: torch.device) -> tuple[int, int]:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    sentence = "^out of memory: the memory of GPU 0 is not enough for"
    with pytest.raises(OutOfMemoryError, match=sentence), translate_memory_errors(build(), torch.device("cuda", 0)):
        raise torch.OutOfMemoryError(CUDA_TEXT)


def test_other_faults_pass(build: Build) -> None:
    with pytest.raises(ZeroDivisionError), translate_memory_errors(build(), torch.device("cpu")):
        raise ZeroDivisionError


def test_an_operation_without_a_deterministic_kernel_is_one_sentence(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise RuntimeError(
            "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'.\nYou can turn off determinism"
        )

    monkeypatch.setattr(TrainingStep, "__call__", refused)
    with pytest.raises(UnsupportedOperationError) as caught:
        train(build(train__deterministic=True), Recorder(), tmp_path)
    text = str(caught.value)
    assert text.startswith(
        "train.deterministic = true is not possible with this network on this device: grid_sampler_2d"
    )
    assert text.endswith("Set train.deterministic = false.") and "\n" not in text and caught.value.status == 1
