"""Parallel work in threads that each use one core."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["map_in_threads", "single_threaded"]

_MAX_WORKERS = 8  # each holds a few blocks of distances

Part = TypeVar("Part")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Part], Result], parts: Iterable[Part], device: torch.device | str = "cpu"
) -> list[Result]:
    """Apply a function to each part in several threads and return the results in order; one thread for a GPU.

    On a busy machine, dividing every short operation among threads would take ten times as long.
    """
    workers = min(torch.get_num_threads(), _MAX_WORKERS) if torch.device(device).type == "cpu" else 1
    with single_threaded(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(function, parts))


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run every operation in the calling thread only."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
