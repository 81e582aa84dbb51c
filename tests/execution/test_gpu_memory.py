from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reid_tune.errors import InputError
from reid_tune.execution import gpu_memory as memory
from reid_tune.execution.gpu_memory import (
    DEFAULT_CUDA_CONTEXT,
    GpuMemory,
    estimate_largest_batch,
    half_batch,
    limit_memory,
    memory_fraction,
)

GIB = 1024**3


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Fractions that are set; a GPU of 10 GiB is simulated."""
    limits: list[float] = []
    properties = SimpleNamespace(total_memory=10 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction, _: limits.append(fraction))
    return limits


def test_the_processes_of_a_gpu_fit_with_their_contexts() -> None:
    fraction = memory_fraction(0.25, 80 * GIB, GIB // 2)
    assert 4 * (fraction * 80 * GIB + GIB // 2) == pytest.approx(80 * GIB)
    assert memory_fraction(1, 80 * GIB, 0) == 1
    with pytest.raises(InputError) as caught:
        memory_fraction(0.05, 10 * GIB, GIB // 2)
    assert str(caught.value) == (
        "resources.gpus_per_worker = 0.05: of a GPU with 10.0 GiB that is 0.50 GiB, and CUDA itself uses 0.50 GiB in "
        "each process: raise it."
    )


def test_only_shares_are_limited(fractions: list[float]) -> None:
    limit_memory(1, GIB)
    limit_memory(0.5, GIB)
    assert fractions == [pytest.approx(0.4)]


@pytest.mark.parametrize(
    ("used", "context", "available"),
    [
        ([1 * GIB, 5 * GIB], GIB, 4 * GIB),
        (
            [5 * GIB, 5 * GIB],
            DEFAULT_CUDA_CONTEXT // 2,
            5 * GIB - DEFAULT_CUDA_CONTEXT // 2,
        ),  # Another process has freed memory in the meantime.
        ([None, 5 * GIB], DEFAULT_CUDA_CONTEXT, 5 * GIB - DEFAULT_CUDA_CONTEXT),
    ],
)
def test_the_context_is_what_is_outside_of_the_allocator(
    used: list[int | None], context: int, available: int, fractions: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_used_bytes", lambda: used[0])
    gpu = GpuMemory(0.5)
    assert fractions == [pytest.approx(0.45)]  # The context is assumed until it is known.
    monkeypatch.setattr(memory, "_used_bytes", lambda: used[1])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * GIB)
    assert gpu.context() == context
    assert gpu.available() == pytest.approx(available, abs=1)


@pytest.mark.parametrize(
    ("environment", "device"),
    [({}, 0), ({"CUDA_VISIBLE_DEVICES": "3,1"}, 3), ({"CUDA_VISIBLE_DEVICES": "GPU-x"}, "GPU-x")],
)
def test_the_gpu_of_the_process_is_asked(
    environment: dict[str, str], device: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pynvml

    monkeypatch.setattr(memory.os, "environ", environment)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    for name in ("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID"):
        monkeypatch.setattr(pynvml, name, lambda handle: handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used={device: 7}[handle]))
    assert memory._used_bytes() == 7

    def fail(_: Any) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", fail)
    assert memory._used_bytes() is None


@pytest.mark.parametrize(
    ("peaks", "available", "largest"),
    [
        ({32: 1320, 64: 1640}, 4000, 300),  # 1,000 and 10 for each image
        ({32: 1320, 64: 1640}, 1640, 64),
        ({32: 1320, 64: 1640}, 1639, 60),
        ({32: 1320, 64: 1640}, 1030, 0),
        ({32: 1320, 64: 1640}, 0, 0),
        ({32: 1500, 64: 1500}, 4000, 0),  # It did not grow: nothing follows.
    ],
)
def test_the_largest_batch_lies_on_the_line(peaks: dict[int, int], available: int, largest: int) -> None:
    assert estimate_largest_batch(peaks, available, 4) == largest


@pytest.mark.parametrize(
    ("batch", "multiple", "half"), [(64, 4, 32), (72, 8, 32), (16, 8, 0), (32, 8, 16), (12, 4, 0), (4, 4, 0)]
)
def test_half_of_a_batch_has_whole_identities(batch: int, multiple: int, half: int) -> None:
    assert half_batch(batch, multiple) == half
