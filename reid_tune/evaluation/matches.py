"""The best matches of a few queries, drawn by chance or the hardest, for people to look at."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reid_tune.evaluation.distances import BlockConsumer, DistanceBlocks
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.neighbours import smallest_columns
from reid_tune.evaluation.score import Score

__all__ = ["Matches", "TopMatches", "hardest_queries", "random_queries"]


@dataclass(frozen=True)
class Matches:
    """The first r gallery images of a query, the best first, without those of its identity and its camera."""

    query: int  # index of the query
    gallery: np.ndarray  # [r] int64 indices into the gallery without junk
    correct: np.ndarray  # [r] bool: whether the identity is the query's


class TopMatches:
    """Keeps the first images of each of q queries while a ranking is at work; of ties the lower gallery index.

    Args:
        features: What is ranked.
        ranks: How many images are kept; memory is O(q ranks).
    """

    def __init__(self, features: FeatureSet, ranks: int) -> None:
        self._features = features.without_junk()
        self._first = np.full((len(features.query_ids), min(ranks, len(self._features.gallery_ids))), -1)

    def __call__(self, blocks: DistanceBlocks) -> DistanceBlocks:
        """The same blocks, which are seen here before their receiver may change them."""

        def show(receive: BlockConsumer) -> None:
            def look(members: Tensor, scores: Tensor) -> None:
                queries = members.cpu().numpy()
                left_out = torch.from_numpy(self._left_out(queries)).to(scores.device)
                values = scores.masked_fill(left_out, torch.inf)
                first = smallest_columns(values, self._first.shape[1])
                self._first[queries] = first.where(values.gather(1, first).isfinite(), -1).cpu().numpy()
                receive(members, scores)

            blocks(look)

        return show

    def matches(self, queries: np.ndarray) -> list[Matches]:
        """What some queries found in the last pass: fewer than `ranks` where the gallery has no more for them."""
        ids, found = self._features.gallery_ids, []
        for query in queries.tolist():
            gallery = self._first[query][self._first[query] >= 0]
            found.append(Matches(query, gallery, ids[gallery] == self._features.query_ids[query]))
        return found

    def _left_out(self, queries: np.ndarray) -> np.ndarray:
        """Which gallery images [b, g] have the identity and the camera of each query."""
        own = self._features
        same = own.query_ids[queries, None] == own.gallery_ids
        return same & (own.query_cameras[queries, None] == own.gallery_cameras)


def random_queries(score: Score, count: int, seed: int) -> np.ndarray:
    """Ascending indices of up to `count` queries with a match, drawn by a seed."""
    order = np.random.default_rng(seed).permutation(score.queries + score.unmatched)
    return np.sort(order[np.isin(order, score.matched)][:count])


def hardest_queries(score: Score, count: int) -> np.ndarray:
    """Indices of up to `count` queries with a match, the lowest average precision first; of ties the lower index."""
    return score.matched[score.average_precision.argsort(kind="stable")[:count]]
