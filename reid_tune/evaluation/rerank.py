"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) without an n x n matrix."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import Blocks, Receiver, Rows, distance_blocks, one_thread
from reid_tune.evaluation.neighbours import Neighbours
from reid_tune.evaluation.ragged import spread
from reid_tune.evaluation.reciprocal import SparseRows, reciprocal_vectors

__all__ = ["ReRanking", "parse_reranking", "reranked_blocks"]

_FEW = 16  # queries whose shared entries are held at once; a hundred thousand each are possible


@dataclass(frozen=True)
class ReRanking:
    """Constants of the re-ranking; numbers of neighbours beyond the set are clipped to it.

    Raises:
        InputError: a value is outside its range.
    """

    k1: int = 20  # neighbours that must be mutual, >= 1
    k2: int = 6  # neighbours whose vectors are averaged, >= 1; 1 switches it off
    lambda_value: float = 0.3  # weight of the original distance, 0..1

    def __post_init__(self) -> None:
        for name in ("k1", "k2"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"re-ranking {name} is {value!r}; give a whole number from 1.")
        if not 0 <= self.lambda_value <= 1:
            raise InputError(f"re-ranking lambda_value is {self.lambda_value!r}; give a number from 0 to 1.")

    def __str__(self) -> str:
        return f"k-reciprocal re-ranking with k1 = {self.k1}, k2 = {self.k2}, lambda = {self.lambda_value:g}"

    @property
    def neighbours(self) -> int:
        """How many neighbours of each row it looks at, the row itself not counted."""
        return max(self.k1, self.k2 - 1)


def parse_reranking(text: str) -> ReRanking:
    """Read `k1,k2,lambda`, such as `20,6,0.3`.

    Raises:
        InputError: there are not three numbers, or one is outside its range.
    """
    try:
        k1, k2, lambda_value = text.split(",")
        return ReRanking(int(k1), int(k2), float(lambda_value))
    except ValueError:
        raise InputError(f"re-ranking '{text}' is not k1,k2,lambda; give three numbers such as 20,6,0.3.") from None


def reranked_blocks(neighbours: Neighbours, queries: Rows, gallery: Rows, setting: ReRanking) -> Blocks:
    """The values (1 - lambda) Jaccard distance + lambda d / largest d [b, g], float32 in 0..1, of q queries.

    Args:
        neighbours: of the q queries followed by the g gallery rows, for at least `setting.neighbours`.
        queries: q rows.
        gallery: g rows.
        setting: the constants.
    """
    with one_thread():
        vectors = reciprocal_vectors(neighbours, setting.k1, setting.k2)
        holders = _Holders(vectors, len(queries))

    def show(receive: Receiver) -> None:
        def rerank(members: Tensor, distances: Tensor) -> None:
            original = distances.div_(neighbours.farthest[members, None]).mul_(setting.lambda_value)
            shared = holders.shared(vectors, members)
            overlap = shared.div_(2 - shared)  # 1 - the Jaccard distance
            weight = 1 - setting.lambda_value
            receive(members, original.add_(overlap, alpha=-weight).add_(weight).clamp_(min=0))

        distance_blocks(queries, gallery)(rerank)

    return show


class _Holders:
    """For each column of the vectors the gallery rows that hold it: an inverted index."""

    def __init__(self, vectors: SparseRows, queries: int) -> None:
        count = len(vectors.starts) - 1
        rows, columns, values = vectors.select(torch.arange(queries, count, device=vectors.starts.device))
        order = columns.argsort(stable=True)
        self.gallery = count - queries
        self.rows, self.values = rows[order], values[order]
        self.lengths = torch.bincount(columns, minlength=count)
        self.starts = self.lengths.cumsum(0) - self.lengths

    def shared(self, vectors: SparseRows, members: Tensor) -> Tensor:
        """The sums [b, g] over the columns of the smaller of two values, for the vectors of some rows."""
        sums = torch.zeros(len(members), self.gallery, device=self.values.device)
        for part, some in zip(sums.split(_FEW), members.split(_FEW), strict=True):
            owner, columns, values = vectors.select(some)
            entry, place = spread(self.starts[columns], self.lengths[columns])
            smaller = torch.minimum(values[entry], self.values[place])
            part.view(-1).index_add_(0, owner[entry] * self.gallery + self.rows[place], smaller)
        return sums
