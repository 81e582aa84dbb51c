"""The k-reciprocal vectors of Zhong et al. (CVPR 2017), as sparse rows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_tune.evaluation.distances import BLOCK, pair_distances
from reid_tune.evaluation.neighbours import Neighbours
from reid_tune.evaluation.ragged import spread

__all__ = ["SparseRows", "reciprocal_vectors"]


@dataclass(frozen=True)
class SparseRows:
    """An [n, n] matrix by its m positive entries, ordered by (row, column)."""

    starts: Tensor  # [n + 1] int64: row i has the entries starts[i] to starts[i + 1]
    columns: Tensor  # [m] int64
    values: Tensor  # [m] float32

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, values: Tensor, count: int) -> "SparseRows":
        """Sparse rows from ordered entries."""
        lengths = torch.bincount(rows, minlength=count)
        return cls(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), columns, values)

    def select(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The entries of the given rows [b]: which of the rows, 0..b-1, the column and the value."""
        owner, place = spread(self.starts[rows], self.starts[rows + 1] - self.starts[rows])
        return owner, self.columns[place], self.values[place]


def reciprocal_vectors(neighbours: Neighbours, k1: int, k2: int) -> SparseRows:
    """The vectors V of all n rows; each sums to 1.

    Row i of V weighs the members of the expanded reciprocal set R*(i, k1) by exp(-d / largest d of row i); then
    it becomes the mean of V over the first k2 neighbours of i, itself included. Lists end where the set ends.
    """
    count = len(neighbours.index)
    own = torch.arange(count, device=neighbours.index.device)
    support = torch.cat([_support(neighbours, k1, some) for some in own.split(BLOCK)])
    rows, columns = support // count, support % count
    weights = torch.exp(-pair_distances(neighbours.rows, rows, columns) / neighbours.farthest[rows])
    sums = torch.zeros(count, device=weights.device).index_add_(0, rows, weights)
    vectors = SparseRows.of(rows, columns, weights / sums[rows], count)
    return vectors if k2 == 1 else _query_expansion(vectors, neighbours.index[:, :k2])


def _support(neighbours: Neighbours, k1: int, some: Tensor) -> Tensor:
    """R*(i, k1) of consecutive rows i as ordered codes i * n + member."""
    half = int(np.around(k1 / 2))
    index, mutual = neighbours.index, neighbours.mutual
    near, reciprocal = index[some, : k1 + 1], mutual[some, : k1 + 1] <= k1
    own = torch.arange(len(some), device=some.device)
    table = torch.zeros(len(some), len(index), dtype=torch.bool, device=some.device)
    table[own[:, None], near] = reciprocal
    members, belongs = index[:, : half + 1][near], (mutual[:, : half + 1] <= half)[near]
    common = (table[own[:, None, None], members] & belongs).sum(2)
    joins = reciprocal & (3 * common > 2 * belongs.sum(2))
    row, column, place = (belongs & joins[:, :, None]).nonzero(as_tuple=True)
    table[row, members[row, column, place]] = True
    return some[0] * len(index) + _nonzero(table.view(-1))


def _nonzero(mask: Tensor) -> Tensor:
    """Indices of the true elements; numpy is several times faster than torch where they are few."""
    return mask.nonzero()[:, 0] if mask.is_cuda else torch.from_numpy(np.flatnonzero(mask.numpy()))


def _query_expansion(vectors: SparseRows, near: Tensor) -> SparseRows:
    """The mean of the vectors of near[i] for each row i."""
    count, k2 = near.shape
    parts = []
    for some in torch.arange(count, device=near.device).split(8 * BLOCK):
        owner, columns, values = vectors.select(near[some].flatten())
        codes, order = (some[owner // k2] * count + columns).sort(stable=True)
        codes, entry = codes.unique_consecutive(return_inverse=True)
        sums = torch.zeros(len(codes), device=near.device).index_add_(0, entry, values[order])
        parts.append((codes, sums / k2))
    codes, means = (torch.cat(part) for part in zip(*parts, strict=True))
    return SparseRows.of(codes // count, codes % count, means, count)
