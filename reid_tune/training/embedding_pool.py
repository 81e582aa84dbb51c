"""Embedding on one device or on several, a process each."""

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

_CHUNK = 1024  # images in one message: some 100 MB


@contextmanager
def open_embedding_pool(devices: Sequence[torch.device]) -> Iterator[Callable[[ModelOpener], Embedder]]:
    """Yield what opens a model on every device; the last model stays open, to open it again costs nothing.

    With several devices the images are split into contiguous shares, one for each, and the embeddings are joined in
    order. The processes end with the block, and with this process however that ends.

    Raises:
        ReidTuneError: what a model raised in a worker.
        RunFailedError: a worker died.
    """
    if len(devices) == 1:
        yield _last(lambda model: model(devices[0]))
        return
    pool = _EmbeddingPool(devices)
    try:
        yield _last(pool.open)
    finally:
        pool.close()


def _last(load: Callable[[ModelOpener], Embedder]) -> Callable[[ModelOpener], Embedder]:
    held: list[tuple[ModelOpener, Embedder]] = []

    def load_once(model: ModelOpener) -> Embedder:
        if not held or held[0][0] != model:
            held.clear()
            held.append((model, load(model)))
        return held[0][1]

    return load_once


class _EmbeddingPool:
    def __init__(self, devices: Sequence[torch.device]) -> None:
        threads = max(1, len(os.sched_getaffinity(0)) // len(devices))
        self._workers = [
            _WorkerProcess(device, threads, f"{n} of {len(devices)}") for n, device in enumerate(devices, 1)
        ]
        self._executor = ThreadPoolExecutor(len(devices))

    def open(self, model: ModelOpener) -> Embedder:
        inputs, dimension = self._all([(worker.ask, model) for worker in self._workers])[0]
        return Embedder(inputs, dimension, self.embed)

    def embed(self, images: np.ndarray) -> np.ndarray:
        shares = np.array_split(images, len(self._workers))
        calls = [(worker.embed, share) for worker, share in zip(self._workers, shares, strict=True) if len(share)]
        return np.concatenate(self._all(calls))

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._executor.shutdown()

    def _all(self, calls: Sequence[tuple[Callable[[Any], Any], Any]]) -> list[Any]:
        """Results of calls that run side by side; the first that fails ends the others."""
        futures = [self._executor.submit(function, argument) for function, argument in calls]
        failed = [future for future in wait(futures, return_when=FIRST_EXCEPTION).done if future.exception()]
        if failed:
            for worker in self._workers:
                worker.close()
        return [future.result() for future in (failed or futures)]


class _WorkerProcess:
    """A process that runs `serve_requests`.

    It is a program of its own: multiprocessing would run the caller's script once more, to find its functions there.
    """

    def __init__(self, device: torch.device, threads: int, name: str) -> None:
        self._name = name
        self._connection, theirs = Pipe()
        handle = theirs.fileno()
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
        theirs.close()
        self._connection.send((device, threads))

    def ask(self, request: Any) -> Any:
        try:
            self._connection.send(request)
            reply = self._connection.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            raise RunFailedError(f"worker {self._name} died (status {status}); was the memory enough?") from None
        if isinstance(reply, ReidTuneError):
            raise reply
        return reply

    def embed(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([self.ask(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()


def serve_requests(handle: int) -> None:
    """Answer the requests of a pool until it goes away: open a model, or embed images with the open one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the pool's process, and that ends this one
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
                    embedder = None  # the memory of the last model is free before the next one comes
                    embedder = request(device)
                    reply = embedder.image_spec, embedder.dimension
            except ReidTuneError as error:
                reply = error
            except Exception as error:
                traceback.print_exc()
                reply = RunFailedError(f"a worker failed ({type(error).__name__}: {error}); see above.")
            connection.send(reply)
