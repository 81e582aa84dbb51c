"""k-reciprocal vectors of Zhong et al. (CVPR 2017) as sparse rows."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_tune.evaluation.distances import BLOCK, pair_distances
from reid_tune.evaluation.neighbours import Neighbours, segment_indices
from reid_tune.evaluation.parallel import map_in_threads

__all__ = ["SparseRows", "reciprocal_vectors"]


@dataclass(frozen=True)
class SparseRows:
    """An [n, n] matrix as its m positive entries, ordered by (row, column)."""

    starts: Tensor  # [n + 1] int64: row i has the entries starts[i] to starts[i + 1]
    columns: Tensor  # [m] int32
    values: Tensor  # [m] float32

    @classmethod
    def of(cls, parts: list[tuple[Tensor, Tensor]], count: int) -> "SparseRows":
        """Sparse rows from parts of ordered entries: codes row * count + column [m] int64, and values [m]."""
        codes, values = (torch.cat(part) for part in zip(*parts, strict=True))
        rows = codes // count
        lengths = torch.bincount(rows, minlength=count)
        return cls(torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), (codes - rows * count).int(), values)

    def select(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entries of the given rows [b]: index of the row 0..b-1, column and value of each entry."""
        owner, position = segment_indices(self.starts[rows], self.starts[rows + 1] - self.starts[rows])
        return owner, self.columns[position], self.values[position]


def reciprocal_vectors(neighbours: Neighbours, k1: int, k2: int) -> SparseRows:
    """Compute the vectors V of all n rows; each sums to 1.

    Row i of V weighs the members of the expanded reciprocal set R*(i, k1) by exp(-d / largest d of row i); then
    it is replaced by the mean of V over the first k2 neighbours of i, including i. Lists are clipped to the set.
    """
    count, device = len(neighbours.index), neighbours.index.device
    all_rows = torch.arange(count, device=device)
    vectors = SparseRows.of(map_in_threads(_Weights(neighbours, k1), all_rows.split(BLOCK), device), count)
    if k2 == 1:
        return vectors
    expand = _QueryExpansion(vectors, neighbours.index[:, :k2])
    return SparseRows.of(map_in_threads(expand, all_rows.split(8 * BLOCK), device), count)


class _Weights:
    """Computes the entries of V before the query expansion, for consecutive rows."""

    def __init__(self, neighbours: Neighbours, k1: int) -> None:
        self.neighbours, self.count = neighbours, len(neighbours.index)
        k1 = min(k1, 2 * self.count)  # half of it covers all rows, too
        half = int(np.around(k1 / 2))
        index, mutual = neighbours.index, neighbours.mutual
        self.near, self.reciprocal = index[:, : k1 + 1], mutual[:, : k1 + 1] <= k1  # R(i, k1)
        belongs = mutual[:, : half + 1] <= half
        # R(j, k1 / 2); an extra last column stands for rows that do not belong to it.
        self.members, self.sizes = torch.where(belongs, index[:, : half + 1], self.count), belongs.sum(1)

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        owner, columns = self._support(rows).nonzero(as_tuple=True)
        weights = torch.exp(
            -pair_distances(self.neighbours.rows, rows[owner], columns) / self.neighbours.farthest[rows[owner]]
        )
        sums = torch.zeros(len(rows), device=weights.device).index_add_(0, owner, weights)
        return rows[owner] * self.count + columns, weights / sums[owner]

    def _support(self, rows: Tensor) -> Tensor:
        """Whether each column is in R*(i, k1), bool [b, n]."""
        width = self.count + 1
        table = torch.zeros(len(rows) * width, dtype=torch.bool, device=rows.device)
        owner, column = self.reciprocal[rows].nonzero(as_tuple=True)
        other, first = self.near[rows[owner], column], owner * width
        table[first + other] = True
        members = self.members[other] + first[:, None]
        common = table[members].sum(1)
        table[members[3 * common > 2 * self.sizes[other]].flatten()] = True
        return table.view(len(rows), width)[:, : self.count]


class _QueryExpansion:
    """Computes the means of the vectors over near [n, k2], for consecutive rows."""

    def __init__(self, vectors: SparseRows, near: Tensor) -> None:
        self.vectors, self.near = vectors, near

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        count, k2 = self.near.shape
        owner, columns, values = self.vectors.select(self.near[rows].flatten())
        codes, order = (rows[owner // k2] * count + columns).sort(stable=True)
        codes, entry = codes.unique_consecutive(return_inverse=True)
        sums = torch.zeros(len(codes), device=rows.device).index_add_(0, entry, values[order])
        return codes, sums / k2
