"""Latency of an exported model."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.journal.provenance import processor_name

__all__ = ["measure_latency"]

_WARM_UP_RUNS, _MIN_RUNS = 3, 3


def measure_latency(
    onnx_file: Path | str,
    batches: Sequence[int] = (1, 16),
    *,
    seconds: float = 2.0,
    runs: int = 50,
    threads: int | None = None,
    gpu: int = 0,
) -> dict[str, Any]:
    """Time onnxruntime on one file, from the prepared images in memory to the embeddings in memory.

    The numbers hold for this device while it is otherwise idle.

    Args:
        onnx_file: The file.
        batches: Batch sizes.
        seconds, runs: Each batch size is repeated until this time or number is reached, at least 3 times, after a
            warm-up.
        threads: Threads on the CPU; None for as many as usable cores.
        gpu: Index of the GPU, where onnxruntime can use one.

    Returns:
        `device`, its name; `threads`; and `batches` by size as text, with `runs`, `median_ms` and `p90_ms` of a whole
        batch in milliseconds, and `images_per_second` at the median.

    Raises:
        InputError: the file was not exported by reid-tune.
    """
    threads = threads or len(os.sched_getaffinity(0))
    model = OnnxModel(onnx_file, threads=threads, gpu=gpu)
    measured = {str(size): _summary(_times(model, size, seconds, runs), size) for size in batches}
    return {"device": _device(model, gpu), "threads": threads, "batches": measured}


def _times(model: OnnxModel, size: int, limit: float, runs: int) -> list[float]:
    """Return the seconds of each run."""
    image_spec = model.preprocessing.image_spec
    crops = np.random.default_rng(0).integers(0, 256, (size, image_spec.height, image_spec.width, 3), np.uint8)
    images = model.preprocessing.prepare(crops)
    times: list[float] = []
    for _ in range(_WARM_UP_RUNS):
        model.run(images)
    while len(times) < _MIN_RUNS or (sum(times) < limit and len(times) < runs):
        start = time.perf_counter()
        model.run(images)
        times.append(time.perf_counter() - start)
    return times


def _summary(times: Sequence[float], size: int) -> dict[str, float]:
    median, p90 = np.percentile(times, [50, 90])
    return {
        "runs": len(times),
        "median_ms": 1000 * float(median),
        "p90_ms": 1000 * float(p90),
        "images_per_second": size / float(median),
    }


def _device(model: OnnxModel, gpu: int) -> str:
    if model.is_on_gpu:
        return torch.cuda.get_device_name(gpu) if torch.cuda.is_available() else f"GPU {gpu}"
    return processor_name()
