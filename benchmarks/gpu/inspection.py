"""Inspection of a run: waits of the host, kernels and the gaps between them, the parts of an epoch, embedding."""

import statistics
import time
import warnings
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import common
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from trainers import ReidTuneTrainer

from reid_tune.evaluation.distances import full_precision

__all__ = ["find_host_waits", "gaps_between", "measure_embedding", "measure_epoch", "profile_steps"]

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cudaStreamSynchronize", "cudaMemcpyAsync")
LARGE_GAP = 50  # microseconds


def find_host_waits(trainer: ReidTuneTrainer) -> list[str]:
    """Return the lines at which the host waits for the GPU in three steps, each with its count."""
    if trainer.run.device.type != "cuda":
        return ["not tried on a CPU"]
    steps = trainer(5)
    next(steps)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in islice(steps, 3):
                pass
        finally:
            torch.cuda.set_sync_debug_mode("default")
            steps.close()
    messages = [warning for warning in caught if "called a synchroniz" in str(warning.message)]
    lines = [f"{Path(warning.filename).name}:{warning.lineno}" for warning in messages]
    return [f"{line} x {lines.count(line)}" for line in dict.fromkeys(lines)] or ["nowhere"]


def profile_steps(trainer: ReidTuneTrainer, file: Path) -> list[str]:
    """Return kernels and gaps of 20 steps under PyTorch's profiler, and write its table to the file."""
    cuda = trainer.run.device.type == "cuda"
    warm, count = (3, 20) if cuda else (1, 1)
    steps, now = trainer(warm + count), common.clock(trainer.run.device)
    for _ in islice(steps, warm):
        pass
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    started = now()
    with torch_profile(activities=activities) as record:
        for _ in steps:
            pass
        wall = now() - started
    averages = record.key_averages()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    file.write_text(averages.table(sort_by=key, row_limit=40, max_name_column_width=90))
    kernels = [event for event in averages if _on_gpu(event)]
    busy = sum(event.self_device_time_total for event in kernels)  # microseconds
    gaps = gaps_between([(event.time_range.start, event.time_range.end) for event in record.events() if _on_gpu(event)])
    large = [gap for gap in gaps if gap > LARGE_GAP]
    calls = {event.key: round(event.count / count) for event in averages if event.key in LAUNCHES}
    longest = sorted(kernels, key=lambda event: -event.self_device_time_total)[:12]
    return [
        f"{1000 * wall / count:.1f} ms a step under the profiler, kernels {busy / 1000 / count:.1f} ms",
        f"gaps over {LARGE_GAP} us: {len(large) / count:.1f} a step, {sum(large) / 1000 / count:.2f} ms a step, "
        f"the largest {max(gaps, default=0) / 1000:.2f} ms",
        f"calls a step: {calls}",
        *(f"{event.self_device_time_total / 1000 / count:.2f} ms {event.key[:70]}" for event in longest),
    ]


def _on_gpu(event: Any) -> bool:
    return event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)


def gaps_between(spans: list[tuple[float, float]]) -> list[float]:
    """Return the times in which no span runs, between the first start and the last end.

    Args:
        spans: Start and end of each span.
    """
    gaps, last_end = [], None
    for start, end in sorted(spans):
        if last_end is not None and start > last_end:
            gaps.append(start - last_end)
        last_end = end if last_end is None else max(last_end, end)
    return gaps


def measure_epoch(trainer: ReidTuneTrainer, folder: Path) -> str:
    """Return the time of an epoch of reid-tune's loop in addition to its steps, and the time of drawing its batches."""
    run = trainer.run
    started = time.perf_counter()
    run.data.sampler.epoch(1)
    drawing = time.perf_counter() - started
    timer = common.EpochTimer(stop_after=4)
    common.train_timed(run.experiment, timer, folder, run.device)
    images = timer.steps_per_epoch * run.experiment.dataset.batch_size
    extra_seconds = [epoch - images / speed for epoch, speed in zip(timer.epochs, timer.speeds, strict=True)][1:]
    return (
        f"{1000 * statistics.median(extra_seconds):.0f} ms of {1000 * statistics.median(timer.epochs[1:]):.0f} ms "
        f"({timer.steps_per_epoch} steps); its batches are drawn in {1000 * drawing:.0f} ms by a thread"
    )


def measure_embedding(trainer: ReidTuneTrainer) -> str:
    """Return the images per second of the forward pass by memory format, in true float32 and in TF32."""
    run = trainer.run
    model, batch = run.experiment.model, run.experiment.dataset.batch_size
    network, now, results = run.network.eval(), common.clock(run.device), []
    images = torch.rand(batch, 3, model.input_height, model.input_width, device=run.device)
    warm, count = (2, 5) if run.device.type == "cuda" else (1, 1)
    for name, form, precision in (
        ("channels last", torch.channels_last, full_precision),
        ("contiguous", torch.contiguous_format, full_precision),
        ("channels last with the process's precision", torch.channels_last, nullcontext),
    ):
        network, inputs = network.to(memory_format=form), images.contiguous(memory_format=form)
        with torch.inference_mode(), precision():
            for _ in range(warm):
                network(inputs)
            started = now()
            for _ in range(count):
                network(inputs)
            results.append(f"{name} {count * batch / (now() - started):.0f}")
    network.train().to(memory_format=torch.channels_last)
    return ", ".join(results)
