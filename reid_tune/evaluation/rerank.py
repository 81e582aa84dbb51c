"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) without an n x n matrix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import BlockConsumer, UniqueRows, distance_blocks
from reid_tune.evaluation.neighbours import Neighbours, segment_indices
from reid_tune.evaluation.reciprocal import reciprocal_vectors

__all__ = ["ReRanking", "parse_reranking", "reranked_blocks"]

_FEW, _FEW_CUDA = 8, 64  # queries whose shared entries are held at a time; each may have a hundred thousand


@dataclass(frozen=True)
class ReRanking:
    """Constants of the re-ranking; numbers of neighbours beyond the set are clipped to it.

    Raises:
        InputError: a value is outside its range.
    """

    k1: int = 20  # neighbours that must be mutual, >= 1
    k2: int = 6  # neighbours whose vectors are averaged, >= 1; 1 switches the averaging off
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
    def pair(self) -> tuple[int, int]:
        """k1 and k2, which determine the Jaccard distances."""
        return self.k1, self.k2

    @property
    def neighbours(self) -> int:
        """Number of neighbours needed of each row, without the row itself."""
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


def reranked_blocks(
    neighbours: Neighbours, queries: UniqueRows, gallery: UniqueRows, settings: Sequence[ReRanking]
) -> Callable[[Sequence[BlockConsumer]], None]:
    """Compute (1 - lambda) Jaccard distance + lambda d / largest d [b, g], float32 in 0..1, for q queries.

    Args:
        neighbours: Neighbours of the q queries followed by the g gallery rows, at least as many as each setting needs.
        queries: Feature rows of the q queries.
        gallery: Feature rows of the g gallery images.
        settings: One or more settings; the vectors of each (k1, k2) are computed once, and are all in memory.

    Returns:
        A function that passes every row of each setting's values once to the consumer of that setting.
    """
    overlaps = {pair: _Overlap(neighbours, *pair, len(queries)) for pair in dict.fromkeys(s.pair for s in settings)}

    def run(receivers: Sequence[BlockConsumer]) -> None:
        def rerank(members: Tensor, distances: Tensor) -> None:
            original = distances.div_(neighbours.farthest[members, None])
            for pair, overlap in overlaps.items():
                shared = overlap(members)
                for setting, receive in zip(settings, receivers, strict=True):
                    if setting.pair == pair:
                        weight = 1 - setting.lambda_value
                        value = torch.mul(original, setting.lambda_value).add_(shared, alpha=-weight)
                        receive(members, value.add_(weight).clamp_(min=0))

        distance_blocks(queries, gallery)(rerank)

    return run


class _Overlap:
    """1 - Jaccard distance of queries to gallery rows, by an inverted index: the gallery rows of each column."""

    def __init__(self, neighbours: Neighbours, k1: int, k2: int, queries: int) -> None:
        self.vectors = reciprocal_vectors(neighbours, k1, k2)
        count = len(neighbours.index)
        rows, columns, values = self.vectors.select(torch.arange(queries, count, device=neighbours.index.device))
        order = columns.argsort(stable=True)
        self.gallery = count - queries
        self.rows, self.values = rows[order].int(), values[order]
        self.lengths = torch.bincount(columns, minlength=count)
        self.starts = self.lengths.cumsum(0) - self.lengths

    def __call__(self, members: Tensor) -> Tensor:
        """Overlaps float32 [b, g] in 0..1 of b queries."""
        sums = torch.zeros(len(members), self.gallery, device=self.values.device)
        held_queries = _FEW_CUDA if sums.is_cuda else _FEW
        for part, queries in zip(sums.split(held_queries), members.split(held_queries), strict=True):
            owner, columns, values = self.vectors.select(queries)
            entry, position = segment_indices(self.starts[columns], self.lengths[columns])
            smaller = torch.minimum(values.index_select(0, entry), self.values.index_select(0, position))
            first = (owner * self.gallery).int().index_select(0, entry)
            part.view(-1).index_add_(0, first.add_(self.rows.index_select(0, position)), smaller)
        return sums.div_(2 - sums)
