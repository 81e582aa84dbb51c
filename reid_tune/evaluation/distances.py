"""Squared Euclidean distances of L2-normalised rows, in blocks, where equal rows have equal distances."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "BLOCK",
    "Blocks",
    "Receiver",
    "Rows",
    "distance_blocks",
    "full_precision",
    "one_thread",
    "pair_distances",
    "tie_free",
]

BLOCK = 256
_MAX_WORKERS = 8  # each holds some blocks

Receiver = Callable[[Tensor, Tensor], None]
"""Takes the indices of some rows [b] and their values [b, n], which it may change and must not keep."""

Blocks = Callable[[Receiver], None]
"""Gives every row to a receiver once; several threads may do so at a time."""


@dataclass(frozen=True)
class Rows:
    """n feature rows as u <= n distinct ones, each with length 1.

    A product of matrices may round the same sum differently at another place of the result, so that images which are
    copies of each other would no longer tie. Every distinct row is therefore multiplied once.
    """

    distinct: Tensor  # [u, d] float32
    position: Tensor  # [n] int64: the distinct row of each row

    @classmethod
    def of(cls, features: np.ndarray, device: torch.device | str = "cpu") -> "Rows":
        """Rows from float32 features of shape [n, d], none all zero."""
        features = np.ascontiguousarray(features) + np.float32(0)  # -0.0 and 0.0 have different bytes
        whole = features.view(np.dtype((np.void, features.itemsize * features.shape[1]))).ravel()
        _, first, position = np.unique(whole, return_index=True, return_inverse=True)
        if len(first) == len(features):
            first = position = np.arange(len(features))
        # The largest value first: a square of a float32 may overflow or vanish.
        values = torch.from_numpy(features[first]).to(device)
        values = torch.nn.functional.normalize(values / values.abs().amax(1, keepdim=True), dim=1)
        return cls(values, torch.from_numpy(position).to(device))

    def __len__(self) -> int:
        return len(self.position)


def distance_blocks(rows: Rows, columns: Rows) -> Blocks:
    """The distances of all rows to all columns [b, n], float32 in 0..4.

    On the CPU several blocks are in work at once, each in one thread: on a busy machine, sharing every short
    operation among threads would take ten times as long.
    """

    def show(receive: Receiver) -> None:
        workers = 1 if rows.distinct.is_cuda else min(torch.get_num_threads(), _MAX_WORKERS)
        work = _Work(rows, columns, receive, workers)
        with one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, range(workers)))

    return show


class _Work:
    """Every n-th block of the distances, for n workers."""

    def __init__(self, rows: Rows, columns: Rows, receive: Receiver, workers: int) -> None:
        self.rows, self.columns, self.receive, self.workers = rows, columns, receive, workers
        self.order = rows.position.argsort(stable=True)
        ends = torch.bincount(rows.position, minlength=len(rows.distinct)).cumsum(0)
        self.ends = [0, *ends.tolist()]
        self.repeated = len(columns.distinct) < len(columns)

    def __call__(self, worker: int) -> None:
        distinct, others = self.rows.distinct, self.columns.distinct
        buffer = torch.empty(min(BLOCK, len(distinct)), len(others), device=distinct.device)
        for start in range(worker * BLOCK, len(distinct), self.workers * BLOCK):
            part = distinct[start : start + BLOCK]
            block = torch.mm(part, others.T, out=buffer[: len(part)]).mul_(-2).add_(2).clamp_(min=0)
            if self.repeated:
                block = block[:, self.columns.position]
            members = self.order[self.ends[start] : self.ends[start + len(part)]]
            if len(members) == len(part):
                self.receive(members, block)
                continue
            for some in members.split(BLOCK):
                self.receive(some, block[self.rows.position[some] - start])


def pair_distances(rows: Rows, left: Tensor, right: Tensor) -> Tensor:
    """Distances [m] between the rows with the indices `left` [m] and `right` [m]."""
    parts = zip(rows.position[left].split(2048), rows.position[right].split(2048), strict=True)
    select = rows.distinct.index_select
    products = [torch.linalg.vecdot(select(0, a), select(0, b)) for a, b in parts]
    return torch.cat(products).mul_(-2).add_(2).clamp_(min=0)


def tie_free(values: Tensor) -> Tensor:
    """int64 keys that order each row of float32 `values` [b, n] by (value, column).

    Of negative values a row may have only one; -0.0 counts as less than 0.0.
    """
    bits = values.contiguous().view(torch.int32).to(torch.int64)
    return (bits << 32) + torch.arange(values.shape[1], device=values.device)


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply and convolve in true float32, whatever a training around has chosen and cuDNN's default is."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let every operation run in the calling thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
