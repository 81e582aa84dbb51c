"""Embedding on one device, or on several devices with a process for each."""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np
import torch

from reid_tune.errors import ReidTuneError, RunFailedError
from reid_tune.training.embedding import Embedder, ModelOpener

__all__ = ["open_embedding_pool"]

_IMAGES_PER_MESSAGE = 1024  # about 100 MB


@contextmanager
def open_embedding_pool(devices: Sequence[torch.device]) -> Iterator[Callable[[ModelOpener], Embedder]]:
    """Yield a function that opens a model on every device; the last model stays open, so opening it again is free.

    With several devices the images are split into contiguous shares, one for each device, and the embeddings are joined
    in order. The processes end with the block, and also if this process ends in any other way.

    Args:
        devices: Device of each worker.

    Raises:
        ReidTuneError: A model raised this error in a worker.
        RunFailedError: A worker died.
    """
    if len(devices) == 1:
        yield _reuse_last_model(lambda model: model(devices[0]))
        return
    pool = _EmbeddingPool(devices)
    try:
        yield _reuse_last_model(pool.open)
    finally:
        pool.close()


def _reuse_last_model(open_model: Callable[[ModelOpener], Embedder]) -> Callable[[ModelOpener], Embedder]:
    last: list[tuple[ModelOpener, Embedder]] = []

    def open_or_reuse(model: ModelOpener) -> Embedder:
        if not last or last[0][0] != model:
            last.clear()
            last.append((model, open_model(model)))
        return last[0][1]

    return open_or_reuse


class _EmbeddingPool:
    """Worker processes, one for each device, that hold the same model."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        threads = max(1, len(os.sched_getaffinity(0)) // len(devices))
        self._workers = [
            _WorkerProcess(device, threads, f"{n} of {len(devices)}") for n, device in enumerate(devices, 1)
        ]
        self._executor = ThreadPoolExecutor(len(devices))

    def open(self, model: ModelOpener) -> Embedder:
        image_spec, dimension = self._call_all([(worker.request, model) for worker in self._workers])[0]
        return Embedder(image_spec, dimension, self.embed)

    def embed(self, images: np.ndarray) -> np.ndarray:
        shares = np.array_split(images, len(self._workers))
        calls = [(worker.embed, share) for worker, share in zip(self._workers, shares, strict=True) if len(share)]
        return np.concatenate(self._call_all(calls))

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._executor.shutdown()

    def _call_all(self, calls: Sequence[tuple[Callable[[Any], Any], Any]]) -> list[Any]:
        """Return the results of concurrent calls; the first call that fails ends the workers."""
        futures = [self._executor.submit(function, argument) for function, argument in calls]
        failed = [future for future in wait(futures, return_when=FIRST_EXCEPTION).done if future.exception()]
        if failed:
            for worker in self._workers:
                worker.close()
        return [future.result() for future in (failed or futures)]


class _WorkerProcess:
    """Process that runs `serve_requests`.

    It is started as a separate program, because multiprocessing would run the caller's script again to import its
    functions.
    """

    def __init__(self, device: torch.device, threads: int, name: str) -> None:
        self._name = name
        self._connection, worker_connection = Pipe()
        handle = worker_connection.fileno()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from reid_tune.training.embedding_pool import serve_requests; serve_requests({handle})",
            ],
            pass_fds=[handle],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        worker_connection.close()
        self._connection.send((device, threads))

    def request(self, message: Any) -> Any:
        try:
            self._connection.send(message)
            reply = self._connection.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            raise RunFailedError(
                f"worker {self._name} died (status {status}): check that the machine has enough memory."
            ) from None
        if isinstance(reply, ReidTuneError):
            raise reply
        return reply

    def embed(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [
                self.request(images[start : start + _IMAGES_PER_MESSAGE])
                for start in range(0, len(images), _IMAGES_PER_MESSAGE)
            ]
        )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()


def serve_requests(handle: int) -> None:
    """Answer the requests of a pool until its process ends: open a model, or embed images with the open model.

    Args:
        handle: File descriptor of the connection to the pool.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the pool's process, which ends this one
    connection = Connection(handle)
    embedder: Embedder | None = None
    with suppress(EOFError, OSError):
        device, threads = connection.recv()
        torch.set_num_threads(threads)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        while True:
            request = connection.recv()
            try:
                if isinstance(request, np.ndarray):
                    assert embedder is not None
                    reply: Any = embedder.embed(request)
                else:
                    embedder = None  # frees the memory of the last model before the next one is opened
                    embedder = request(device)
                    reply = embedder.image_spec, embedder.dimension
            except ReidTuneError as error:
                reply = error
            except Exception as error:
                traceback.print_exc()
                reply = RunFailedError(f"a worker failed ({type(error).__name__}: {error}); see the traceback above.")
            connection.send(reply)
