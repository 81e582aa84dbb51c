"""The first matches of chosen queries, random ones or the hardest, for pictures."""

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
    """The r nearest gallery images of a query in order, without those of its identity and its camera."""

    query: int  # index of the query
    gallery: np.ndarray  # [r] int64 indices into the gallery without junk
    correct: np.ndarray  # [r] bool: whether the identity is the query's


class TopMatches:
    """Collects the nearest gallery images of each of q queries during a ranking; of ties the lower gallery index.

    Args:
        features: The ranked feature set.
        ranks: Number of images kept per query; memory is O(q ranks).
    """

    def __init__(self, features: FeatureSet, ranks: int) -> None:
        self._features = features.without_junk()
        self._first = np.full((len(features.query_ids), min(ranks, len(self._features.gallery_ids))), -1)

    def __call__(self, blocks: DistanceBlocks) -> DistanceBlocks:
        """Wrap blocks: each block is read here before its consumer may change it."""

        def run(receive: BlockConsumer) -> None:
            def keep_first(members: Tensor, scores: Tensor) -> None:
                queries = members.cpu().numpy()
                left_out = torch.from_numpy(self._left_out(queries)).to(scores.device)
                values = scores.masked_fill(left_out, torch.inf)
                first = smallest_columns(values, self._first.shape[1])
                self._first[queries] = first.where(values.gather(1, first).isfinite(), -1).cpu().numpy()
                receive(members, scores)

            blocks(keep_first)

        return run

    def matches(self, queries: np.ndarray) -> list[Matches]:
        """Matches of the given queries in the last pass; fewer than `ranks` if the gallery has no more."""
        ids, results = self._features.gallery_ids, []
        for query in queries.tolist():
            gallery = self._first[query][self._first[query] >= 0]
            results.append(Matches(query, gallery, ids[gallery] == self._features.query_ids[query]))
        return results

    def _left_out(self, queries: np.ndarray) -> np.ndarray:
        """Mask [b, g] of the gallery images with the identity and the camera of each query."""
        labels = self._features
        same = labels.query_ids[queries, None] == labels.gallery_ids
        return same & (labels.query_cameras[queries, None] == labels.gallery_cameras)


def random_queries(score: Score, count: int, seed: int) -> np.ndarray:
    """Draw up to `count` queries with a match by a seed; ascending indices."""
    order = np.random.default_rng(seed).permutation(score.queries + score.unmatched)
    return np.sort(order[np.isin(order, score.matched)][:count])


def hardest_queries(score: Score, count: int) -> np.ndarray:
    """Indices of up to `count` queries with a match, the lowest average precision first; of ties the lower index."""
    return score.matched[score.average_precision.argsort(kind="stable")[:count]]
