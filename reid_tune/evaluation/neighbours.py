"""Nearest neighbours of every row, found once for all settings of the re-ranking; lists of different lengths."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reid_tune.evaluation.distances import BLOCK, UniqueRows, distance_blocks, tie_breaking_keys
from reid_tune.evaluation.parallel import map_in_threads

__all__ = ["Neighbours", "find_neighbours", "segment_indices", "smallest_columns"]


@dataclass(frozen=True)
class Neighbours:
    """The k nearest other rows of each of n rows, and the distance to the farthest row.

    Memory is O(n k); a smaller k is a prefix of the columns.
    """

    rows: UniqueRows
    index: Tensor  # [n, k + 1] int64, ordered by (distance, index), the row itself first
    mutual: Tensor  # [n, k + 1] int64: column of the row in its neighbour's list, k + 1 if it is not in it
    farthest: Tensor  # [n] float32: the largest distance of the row, above 0


def find_neighbours(rows: UniqueRows, k: int) -> Neighbours:
    """Find k >= 1 neighbours of each of n >= 2 rows; k is clipped to n - 1."""
    count = min(k, len(rows) - 1) + 1
    index = torch.empty(len(rows), count, dtype=torch.int64, device=rows.position.device)
    farthest = torch.empty(len(rows), device=rows.position.device)

    def keep(members: Tensor, block: Tensor) -> None:
        farthest[members] = block.amax(1).clamp_(min=1e-30)
        block.scatter_(1, members[:, None], -1.0)  # own index first
        index[members] = smallest_columns(block, count)

    distance_blocks(rows, rows)(keep)
    return Neighbours(rows, index, _mutual(index), farthest)


def smallest_columns(values: Tensor, count: int) -> Tensor:
    """Columns [b, count] int64 of the smallest values >= 0 of each row, ordered by (value, column)."""
    kept, columns = values.topk(min(count + 1, values.shape[1]), largest=False)
    columns, order = columns[:, :count].sort(1)
    columns = columns.gather(1, kept[:, :count].gather(1, order).argsort(dim=1, stable=True))
    # topk keeps any of equal values: if the limit falls within a tie, the keys decide.
    tied = (kept[:, count:] == kept[:, count - 1 : count]).any(1).nonzero()[:, 0]
    if len(tied):
        columns[tied] = tie_breaking_keys(values[tied]).topk(count, largest=False).indices
    return columns


def _mutual(index: Tensor) -> Tensor:
    column = torch.arange(index.shape[1], device=index.device)

    def columns(part: Tensor) -> Tensor:
        is_member = index[index[part]] == part[:, None, None]
        return torch.where(is_member, column, len(column)).amin(2)

    rows = torch.arange(len(index), device=index.device)
    return torch.cat(map_in_threads(columns, rows.split(BLOCK), index.device))


def segment_indices(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Number the elements of m slices of a flat array, one slice after the other.

    Returns:
        For each element its slice, 0..m-1, and its position starts[slice] + 0, 1, ... in the flat array.
    """
    owner = torch.repeat_interleave(lengths)
    first = lengths.cumsum(0) - lengths
    return owner, torch.arange(len(owner), device=owner.device) + (starts - first)[owner]
