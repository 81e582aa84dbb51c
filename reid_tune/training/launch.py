"""Several workers on this machine, for a run of its own."""

import contextlib
import json
import logging
import multiprocessing.connection
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from reid_tune import errors
from reid_tune.environment import set_defaults
from reid_tune.errors import ReidTuneError, RunFailedError
from reid_tune.training.compiler import limit_compile_processes
from reid_tune.training.timeouts import GROUP_TIMEOUT

__all__ = ["launch_workers"]

_GRACE_SECONDS = 30.0  # for workers to end by themselves, as torch gives them


def launch_workers(function: Callable[..., None], arguments: Sequence[Any], devices: Sequence[torch.device]) -> None:
    """Call `function(*arguments, device)` in a process for each device, joined in one process group.

    The processes meet through a file, so that no port is opened beyond those of the process group itself. They end
    with this process, and with the first of them that fails.

    Raises:
        ReidTuneError: what the function raised in a worker.
        RunFailedError: a worker died.
    """
    with tempfile.TemporaryDirectory(prefix="reid-tune-") as folder:
        # The end of a run is one sentence, without torch's lines about the workers that it ends.
        logging.getLogger(start_processes.__module__).setLevel(logging.ERROR)
        # A single machine needs no name of its own that resolves.
        set_defaults({"GLOO_SOCKET_IFNAME": "lo"})
        processes = start_processes(
            _run_worker,
            (function, tuple(arguments), list(devices), folder),
            len(devices),
            join=False,
            start_method="spawn",
        )
        assert processes is not None
        try:
            while processes.sentinels:
                _require_no_death(processes)
                processes.join()
        except ProcessExitedException as error:
            raise RunFailedError(f"worker {error.error_index} of {len(devices)} died ({error.msg}).") from None
        except ProcessRaisedException:
            fault = _fault(Path(folder))
            if fault is None:
                raise
            raise fault from None
        finally:
            _end(processes)


def _end(context: ProcessContext) -> None:
    """End the workers that are still there; a checkpoint that one of them is writing is finished first."""
    for process in context.processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in context.processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():  # It waits for the others in a library, where no signal handler runs.
            process.kill()
            process.join()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _require_no_death(context: ProcessContext) -> None:
    """Wait for an end, and name the worker that a signal ended before the faults that its death causes in others."""
    for sentinel in multiprocessing.connection.wait(context.sentinels):
        context.processes[context.sentinels[sentinel]].join()  # Only now its exit code is known.
    for number, process in enumerate(context.processes):
        if (code := process.exitcode or 0) < 0:
            raise RunFailedError(f"worker {number} of {len(context.processes)} died ({signal.strsignal(-code)}).")


def _run_worker(
    rank: int, function: Callable[..., None], arguments: tuple[Any, ...], devices: list[torch.device], folder: str
) -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    device = devices[rank]
    cpus = max(1, len(os.sched_getaffinity(0)) // len(devices))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cpus))
    limit_compile_processes(cpus)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _quiet_end(Path(folder)):
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=len(devices),
            timeout=GROUP_TIMEOUT,
            device_id=device if device.type == "cuda" else None,
        )
        function(*arguments, device)
        dist.barrier()
        dist.destroy_process_group()


@contextlib.contextmanager
def _quiet_end(folder: Path) -> Iterator[None]:
    """Ctrl-C ends a worker without a traceback; the user's faults are kept for the parent."""
    try:
        yield
    except KeyboardInterrupt:
        os._exit(130)
    except ReidTuneError as error:
        with contextlib.suppress(FileExistsError), (folder / "fault").open("x") as file:
            json.dump({"kind": type(error).__name__, "message": str(error)}, file)
        raise


def _fault(folder: Path) -> ReidTuneError | None:
    with contextlib.suppress(OSError, ValueError):
        fault = json.loads((folder / "fault").read_text())
        error: ReidTuneError = getattr(errors, fault["kind"])(fault["message"])
        return error
    return None
