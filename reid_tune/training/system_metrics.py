"""What a training takes of its machine, by the names that MLflow's own monitor has."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import psutil
import torch

__all__ = ["SystemMonitor"]

_EVERY = 2.0  # seconds between two looks


class SystemMonitor:
    """Looks at the machine now and then from a thread; a context manager.

    Args:
        device: Where this worker computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._seen: dict[str, list[float]] = {}
        self._peak = 0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="usage", daemon=True)

    def collect(self) -> dict[str, float]:
        """Means since the last call, and the peak memory of this process and of its GPU, in MB.

        `system/cpu_utilization_percentage`, `system/system_memory_usage_megabytes` and `_percentage`, and of a GPU
        `system/gpu_0_utilization_percentage`, `system/gpu_0_memory_usage_megabytes`, `system/gpu_0_power_usage_watts`;
        `train/memory_megabytes` and `train/gpu_memory_megabytes`.
        """
        self._look()
        with self._lock:
            found = {name: round(sum(values) / len(values), 1) for name, values in self._seen.items()}
            found["train/memory_megabytes"] = round(self._peak / 1e6, 1)
            self._seen, self._peak = {}, 0
        if self._device.type == "cuda":
            found["train/gpu_memory_megabytes"] = round(torch.cuda.max_memory_allocated(self._device) / 1e6, 1)
            torch.cuda.reset_peak_memory_stats(self._device)
        return found

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        memory = psutil.virtual_memory()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            **self._gpu(),
        }
        with self._lock:
            self._peak = max(self._peak, self._process.memory_info().rss)
            for name, value in values.items():
                self._seen.setdefault(f"system/{name}", []).append(value)

    def _gpu(self) -> dict[str, float]:
        if self._device.type != "cuda":
            return {}
        sources: dict[str, Callable[[], float]] = {
            "gpu_0_memory_usage_megabytes": lambda: torch.cuda.device_memory_used(self._device) / 1e6,
            "gpu_0_utilization_percentage": lambda: float(torch.cuda.utilization(self._device)),
            "gpu_0_power_usage_watts": lambda: torch.cuda.power_draw(self._device) / 1000,
        }
        values = {}
        for name, source in sources.items():
            with suppress(Exception):  # A slice of a GPU, a container or another driver may not tell it.
                values[name] = source()
        return values

    def __enter__(self) -> Self:
        psutil.cpu_percent()  # The first call has nothing to compare with.
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
