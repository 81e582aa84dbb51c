"""Features in, mAP, mINP and CMC out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import Rows, distance_blocks, full_precision
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.neighbours import nearest
from reid_tune.evaluation.ranking import Ranking, rank
from reid_tune.evaluation.rerank import ReRanking, reranked_blocks

__all__ = ["Score", "score", "scores"]

_MAX_RANK = 50


@dataclass(frozen=True)
class Score:
    """The metrics as fractions, and what each of the queries with a match (m of them) contributed."""

    mAP: float
    mINP: float
    cmc: np.ndarray  # [min(50, gallery)] float64: share of queries with a match among the first 1, 2, ... images
    average_precision: np.ndarray  # [m] float64
    inverse_negative_penalty: np.ndarray  # [m] float64
    query_ids: np.ndarray  # [m] int64
    queries: int  # those with a match, m
    unmatched: int  # queries without one, which count in no metric
    gallery: int  # images after junk was dropped

    def as_dict(self) -> dict[str, float | int]:
        """The keys mAP, mINP, Rank-1, Rank-5, Rank-10, queries, gallery; fractions, not percent."""
        ranks = {f"Rank-{k}": float(self.cmc[min(k, len(self.cmc)) - 1]) for k in (1, 5, 10)}
        return {"mAP": self.mAP, "mINP": self.mINP, **ranks, "queries": self.queries, "gallery": self.gallery}


def score(features: FeatureSet, reranking: ReRanking | None = None, device: torch.device | str = "cpu") -> Score:
    """Score the retrieval by squared Euclidean distance of L2-normalised features, re-ranked if wanted.

    Junk (identity -1) leaves the gallery before anything else; for each query, gallery images of its identity and
    its camera are left out; average precision is the mean of the precision at each match.

    Raises:
        InputError: no gallery image is left without junk, or no query has a match.
    """
    return next(scores(features, [reranking], device))


def scores(
    features: FeatureSet, settings: Sequence[ReRanking | None], device: torch.device | str = "cpu"
) -> Iterator[Score]:
    """Yield the score of each setting, None for plain distances; the neighbours are found once for all.

    Raises:
        InputError: see `score`.
    """
    features = features.without_junk()
    if not len(features.gallery_ids):
        raise InputError("every gallery image is junk (identity -1); give a gallery with identities.")
    with full_precision():
        queries, gallery = (Rows.of(x, device) for x in (features.query_features, features.gallery_features))
        widest = max((setting.neighbours for setting in settings if setting), default=0)
        together = np.concatenate([features.query_features, features.gallery_features])
        neighbours = nearest(Rows.of(together, device), widest) if widest else None
    for setting in settings:
        with full_precision():
            if setting and neighbours:
                blocks = reranked_blocks(neighbours, queries, gallery, setting)
            else:
                blocks = distance_blocks(queries, gallery)
            ranking = rank(features, blocks)
        yield _score(features, ranking)


def _score(features: FeatureSet, ranking: Ranking) -> Score:
    first_hit = ranking.first_hit.numpy()
    found = first_hit >= 0
    if not found.any():
        raise InputError("no query has a match (its identity under another camera) in the gallery; check the two sets.")
    gallery = len(features.gallery_ids)
    precision, penalty = (x.numpy()[found] for x in (ranking.average_precision, ranking.inverse_negative_penalty))
    counts = np.bincount(first_hit[found], minlength=_MAX_RANK)
    return Score(
        mAP=float(precision.mean()),
        mINP=float(penalty.mean()),
        cmc=counts.cumsum()[: min(_MAX_RANK, gallery)] / found.sum(),
        average_precision=precision,
        inverse_negative_penalty=penalty,
        query_ids=features.query_ids[found],
        queries=int(found.sum()),
        unmatched=int((~found).sum()),
        gallery=gallery,
    )
