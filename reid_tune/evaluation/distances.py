"""Squared Euclidean distances of L2-normalised rows, in blocks; equal rows have equal distances."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_tune.environment import set_defaults
from reid_tune.evaluation.centring import find_centre, sample_indices
from reid_tune.evaluation.equal_rows import concatenate_rows
from reid_tune.evaluation.parallel import map_in_threads, single_threaded

__all__ = [
    "BLOCK",
    "DistanceBlocks",
    "BlockConsumer",
    "UniqueRows",
    "distance_blocks",
    "fix_cublas_workspace",
    "full_precision",
    "pair_distances",
    "deterministic_algorithms",
    "tie_breaking_keys",
]

BLOCK = 256
_HELD = 1 << 24  # distances in a block: fewer rows if there are many columns
_COPIED = 1 << 19  # values copied at a time

BlockConsumer = Callable[[Tensor, Tensor], None]
"""Receives the indices of rows [b] and their values [b, n], which it may change and must not keep."""

DistanceBlocks = Callable[[BlockConsumer], None]
"""Passes every row to a consumer once; several threads may do so at a time."""


@dataclass(frozen=True)
class UniqueRows:
    """n feature rows as u <= n distinct ones, divided by their lengths, and centred if they are close together.

    A matrix product may round the same sum differently at another position of the result, so that copies of an image
    would no longer tie. Every distinct row is therefore multiplied once. The centre, see `find_centre`, belongs to all
    rows of one call of `joined`, and only rows with the same centre can be compared.
    """

    distinct: Tensor  # [u, d] float32
    position: Tensor  # [n] int64: the distinct row of each row
    centre: Tensor | None = None  # [d] float64: subtracted from the rows of length 1; None if nothing was
    squares: Tensor | None = None  # [u] float32: squared lengths of centred rows; None if all are 1

    @classmethod
    def joined(cls, parts: Sequence[np.ndarray], device: torch.device | str = "cpu") -> "UniqueRows":
        """Unique rows of several arrays of float32 features [n, d], one after the other; no row is all zero.

        They are copied block by block, as features may be mapped from a file.
        """
        values, first = concatenate_rows(parts, device)
        distinct = np.flatnonzero(first == np.arange(len(first)))
        sample = torch.from_numpy(distinct[sample_indices(len(distinct))]).to(device)
        middle = find_centre(values[sample].cpu().numpy())
        centre = None if middle is None else torch.from_numpy(middle).to(device)
        with single_threaded():
            for start in range(0, len(distinct), BLOCK):
                rows = torch.from_numpy(distinct[start : start + BLOCK]).to(device)
                part = values[start : start + len(rows)]
                part[:] = _normalised(values[rows], centre)  # each is at this position or a later one
        position = torch.from_numpy(np.searchsorted(distinct, first)).to(device)
        values = values[: len(distinct)]
        return cls(values, position, centre, None if centre is None else values.square().sum(1))

    @classmethod
    def of_sides(
        cls, queries: np.ndarray, gallery: np.ndarray, device: torch.device | str = "cpu"
    ) -> tuple["UniqueRows", "UniqueRows"]:
        """Unique rows of queries and of a gallery, which can be compared."""
        rows = cls.joined([queries, gallery], device)
        return rows.part(0, len(queries)), rows.part(len(queries), len(rows))

    def part(self, start: int, stop: int) -> "UniqueRows":
        """The rows from `start` to `stop`; they share the memory if no other rows lie between them."""
        numbers, position = self.position[start:stop].unique(return_inverse=True)
        low, high = int(numbers[0]), int(numbers[-1]) + 1
        chosen = slice(low, high) if high - low == len(numbers) else numbers
        squares = None if self.squares is None else self.squares[chosen]
        return UniqueRows(self.distinct[chosen], position, self.centre, squares)

    def __len__(self) -> int:
        return len(self.position)


def _normalised(values: Tensor, centre: Tensor | None) -> Tensor:
    if centre is not None:
        values = values.double()
    # Divided by the largest value first: the square of a float32 may overflow or vanish.
    rows = torch.nn.functional.normalize(values / values.abs().amax(1, keepdim=True), dim=1)
    return rows if centre is None else rows.sub_(centre).float()


def distance_blocks(rows: UniqueRows, columns: UniqueRows) -> DistanceBlocks:
    """Distances of all rows to all columns [b, n], float32 in 0..4; on the CPU several blocks at a time.

    Args:
        rows: The rows.
        columns: Rows of the same call of `UniqueRows.joined`, or like `rows` without a centre.
    """
    assert rows.centre is columns.centre, "the rows have different centres"

    def run(receive: BlockConsumer) -> None:
        work = _Work(rows, columns, receive)
        map_in_threads(work, range(0, len(rows.distinct), work.size), rows.distinct.device)

    return run


class _Work:
    """Computes the distances of a block of distinct rows, given by the first one, to all columns."""

    def __init__(self, rows: UniqueRows, columns: UniqueRows, receive: BlockConsumer) -> None:
        self.rows, self.columns, self.receive = rows, columns, receive
        self.size = min(BLOCK, max(32, _HELD // len(columns)))
        self.order = rows.position.argsort(stable=True)
        ends = torch.bincount(rows.position, minlength=len(rows.distinct)).cumsum(0)
        self.ends = [0, *ends.tolist()]
        self.in_order = torch.equal(columns.position.cpu(), torch.arange(len(columns.distinct)))

    def __call__(self, start: int) -> None:
        part = self.rows.distinct[start : start + self.size]
        block = torch.mm(part, self.columns.distinct.T).mul_(-2)
        if self.rows.squares is None or self.columns.squares is None:
            block.add_(2)
        else:
            block.add_(self.rows.squares[start : start + self.size, None]).add_(self.columns.squares)
        block.clamp_(min=0)
        if not self.in_order:
            block = block[:, self.columns.position]
        members = self.order[self.ends[start] : self.ends[start + len(part)]]
        if len(members) == len(part):
            self.receive(members, block)
            return
        for rows in members.split(self.size):
            self.receive(rows, block[self.rows.position[rows] - start])


def pair_distances(rows: UniqueRows, left: Tensor, right: Tensor) -> Tensor:
    """Distances [m] between the rows with the indices `left` [m] and `right` [m]."""
    products = torch.empty(len(left), device=left.device)
    left, right = rows.position[left], rows.position[right]
    select, rows_at_once = rows.distinct.index_select, max(1, _COPIED // rows.distinct.shape[1])
    for part, a, b in zip(*(x.split(rows_at_once) for x in (products, left, right)), strict=True):
        part[:] = torch.linalg.vecdot(select(0, a), select(0, b))
    products.mul_(-2).add_(2 if rows.squares is None else rows.squares[left] + rows.squares[right])
    return products.clamp_(min=0)


def tie_breaking_keys(values: Tensor) -> Tensor:
    """int64 keys that order each row of float32 `values` [b, n] by (value, column).

    A row may have only one negative value; -0.0 counts as less than 0.0.
    """
    bits = values.contiguous().view(torch.int32).to(torch.int64)
    return bits.bitwise_left_shift_(32).add_(torch.arange(values.shape[1], device=values.device))


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply and convolve in true float32, whatever a surrounding training and cuDNN's default say."""
    previous = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous[0])
        torch.backends.cudnn.allow_tf32 = previous[1]


def fix_cublas_workspace() -> None:
    """Make cuBLAS deterministic: some versions of PyTorch require it, and read it at a process's first product."""
    set_defaults({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Use deterministic algorithms if `enabled`: a GPU then adds in a fixed order. The previous choice is restored."""
    previous = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if enabled:
        fix_cublas_workspace()
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(previous[0], warn_only=previous[1])
