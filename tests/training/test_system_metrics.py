import psutil
import pytest
import torch

from reid_tune.training.system_metrics import SystemMonitor


def test_the_machine_is_told_as_its_own_tools_do() -> None:
    with SystemMonitor(torch.device("cpu")) as usage:
        held = torch.ones(50_000_000)  # 200 MB, which are the process's and the machine's
        first = usage.collect()
        assert first.keys() == {
            "system/cpu_utilization_percentage",
            "system/system_memory_usage_megabytes",
            "system/system_memory_usage_percentage",
            "train/memory_megabytes",
        }
        memory = psutil.virtual_memory()
        assert abs(first["system/system_memory_usage_megabytes"] - memory.used / 1e6) < 0.1 * memory.total / 1e6
        assert 0 <= first["system/cpu_utilization_percentage"] <= 100
        process_memory = psutil.Process().memory_info().rss / 1e6
        assert abs(first["train/memory_megabytes"] - process_memory) < 50 and process_memory > 200
        del held
        assert usage.collect()["train/memory_megabytes"] < first["train/memory_megabytes"] - 150, (
            "a peak for each epoch"
        )


def test_the_thread_ends_with_the_block() -> None:
    with SystemMonitor(torch.device("cpu")) as usage:
        assert usage._thread.is_alive()
    assert not usage._thread.is_alive()


def test_a_gpu_that_does_not_tell_its_use_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class NotSupported(Exception):
        """Error as in NVIDIA's bindings, whose only base class is Exception."""

    def refuse(*_: object) -> float:
        raise NotSupported

    for name in ("utilization", "power_draw"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda _: 3_000_000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 2_000_000)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    with SystemMonitor(torch.device("cuda", 0)) as usage:
        metrics = {name: value for name, value in usage.collect().items() if "gpu" in name}
    assert metrics == {"system/gpu_0_memory_usage_megabytes": 3.0, "train/gpu_memory_megabytes": 2.0}
