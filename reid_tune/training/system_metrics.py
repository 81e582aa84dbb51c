"""System metrics of a training, with the names of MLflow's own monitor."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import psutil
import torch

__all__ = ["SystemMonitor"]

_INTERVAL = 2.0  # seconds between two samples


class SystemMonitor:
    """Samples the load and the memory of the machine every 2 s in a thread; a context manager.

    Args:
        device: Device of this worker.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._samples: dict[str, list[float]] = {}
        self._peak_memory = 0
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)

    def collect(self) -> dict[str, float]:
        """Return means since the last call, and the peak memory of this process and of its GPU in MB.

        The names are `system/cpu_utilization_percentage`, `system/system_memory_usage_megabytes`,
        `system/system_memory_usage_percentage` and `train/memory_megabytes`; with a GPU also
        `system/gpu_0_utilization_percentage`, `system/gpu_0_memory_usage_megabytes`, `system/gpu_0_power_usage_watts`
        and `train/gpu_memory_megabytes`.
        """
        self._sample()
        with self._lock:
            metrics = {name: round(sum(values) / len(values), 1) for name, values in self._samples.items()}
            metrics["train/memory_megabytes"] = round(self._peak_memory / 1e6, 1)
            self._samples, self._peak_memory = {}, 0
        if self._device.type == "cuda":
            metrics["train/gpu_memory_megabytes"] = round(torch.cuda.max_memory_allocated(self._device) / 1e6, 1)
            torch.cuda.reset_peak_memory_stats(self._device)
        return metrics

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            self._sample()

    def _sample(self) -> None:
        memory = psutil.virtual_memory()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            **self._sample_gpu(),
        }
        with self._lock:
            self._peak_memory = max(self._peak_memory, self._process.memory_info().rss)
            for name, value in values.items():
                self._samples.setdefault(f"system/{name}", []).append(value)

    def _sample_gpu(self) -> dict[str, float]:
        if self._device.type != "cuda":
            return {}
        sources: dict[str, Callable[[], float]] = {
            "gpu_0_memory_usage_megabytes": lambda: torch.cuda.device_memory_used(self._device) / 1e6,
            "gpu_0_utilization_percentage": lambda: float(torch.cuda.utilization(self._device)),
            "gpu_0_power_usage_watts": lambda: torch.cuda.power_draw(self._device) / 1000,
        }
        values = {}
        for name, source in sources.items():
            with suppress(Exception):  # Not available on a slice of a GPU, in some containers and with some drivers.
                values[name] = source()
        return values

    def __enter__(self) -> Self:
        psutil.cpu_percent()  # The first call has no earlier one to compare with.
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
