"""Several workers of a single run on this machine."""

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
from reid_tune.storage.temporary_folder import temporary_folder
from reid_tune.training.compiler import limit_compile_processes
from reid_tune.training.timeouts import GROUP_TIMEOUT

__all__ = ["launch_workers"]

_GRACE_SECONDS = 30.0  # for workers to end on request, as in torch
_ERROR_FILE = "error.json"


def launch_workers(function: Callable[..., None], arguments: Sequence[Any], devices: Sequence[torch.device]) -> None:
    """Call `function(*arguments, device)` in a process for each device, joined in one process group.

    The processes find each other through a file, so that no ports are opened except those of the process group itself.
    They end when this process ends, or when one of them fails.

    Args:
        function: Picklable function.
        arguments: Its first arguments; the last one is the device of the worker.
        devices: Device of each worker.

    Raises:
        ReidTuneError: The function raised this error in a worker.
        RunFailedError: A worker died.
    """
    with temporary_folder() as folder:
        # An error of a run is one sentence, without torch's lines about the workers that it ends.
        logging.getLogger(start_processes.__module__).setLevel(logging.ERROR)
        # Workers of a single machine use the loopback, as the name of the machine may not resolve.
        set_defaults({"GLOO_SOCKET_IFNAME": "lo"})
        with _temporary_files_in(folder):
            processes = start_processes(
                _run_worker,
                (function, tuple(arguments), list(devices), str(folder)),
                len(devices),
                join=False,
                start_method="spawn",
            )
        assert processes is not None
        try:
            while processes.sentinels:
                _check_signals(processes)
                processes.join()
        except ProcessExitedException as error:
            raise RunFailedError(f"worker {error.error_index} of {len(devices)} died ({error.msg}).") from None
        except ProcessRaisedException:
            worker_error = _read_worker_error(folder)
            if worker_error is None:
                raise
            raise worker_error from None
        finally:
            _stop(processes)


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let torch choose the files for pickled errors of its workers in a folder that only this user can enter.

    A file exists only after an error. In a folder that all users share, another one could create it first, and this
    process would run what is in it.
    """
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _stop(context: ProcessContext) -> None:
    """End the workers that still run; a checkpoint that one of them is writing is finished first."""
    for process in context.processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in context.processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():  # It waits for other workers in a library, where no signal handler runs.
            process.kill()
            process.join()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _check_signals(context: ProcessContext) -> None:
    """Wait for a worker to end, and report a signal that ended it before the errors that this causes in other workers.

    Raises:
        RunFailedError: A signal ended a worker.
    """
    for sentinel in multiprocessing.connection.wait(context.sentinels):
        context.processes[context.sentinels[sentinel]].join()  # Its exit code is known only after this.
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
    with _pass_errors_on(Path(folder)):
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
def _pass_errors_on(folder: Path) -> Iterator[None]:
    """Save errors of the user for the parent process; end the worker without a traceback on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        os._exit(130)
    except ReidTuneError as error:
        with contextlib.suppress(FileExistsError), (folder / _ERROR_FILE).open("x") as file:
            json.dump({"kind": type(error).__name__, "message": str(error)}, file)
        raise


def _read_worker_error(folder: Path) -> ReidTuneError | None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / _ERROR_FILE).read_text())
        error: ReidTuneError = getattr(errors, content["kind"])(content["message"])
        return error
    return None
