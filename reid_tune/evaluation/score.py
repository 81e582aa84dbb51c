"""mAP, mINP and CMC of a feature set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from reid_tune.evaluation.degenerate import EmbeddingStatistics, examine_rows
from reid_tune.evaluation.distances import DistanceBlocks, UniqueRows, distance_blocks, full_precision
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.intervals import interval
from reid_tune.evaluation.neighbours import find_neighbours
from reid_tune.evaluation.rankable import require_rankable
from reid_tune.evaluation.ranking import Ranking, rank
from reid_tune.evaluation.rerank import ReRanking, reranked_blocks

__all__ = ["Retrieval", "Score", "score", "scores"]

_RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Score:
    """Metrics as fractions, and the values of each of the m queries with a match."""

    mAP: float
    mINP: float
    average_precision: np.ndarray  # [m] float64
    inverse_negative_penalty: np.ndarray  # [m] float64
    first_hit: np.ndarray  # [m] int64: how many gallery images stand before the first match
    query_ids: np.ndarray  # [m] int64
    matched: np.ndarray  # [m] int64: their indices among all queries, ascending
    queries: int  # number of queries with a match, m
    unmatched: int  # number of queries without a match, which count in no metric
    gallery: int  # number of images without junk
    reranking: ReRanking | None  # settings of the re-ranking; None without it
    embeddings: EmbeddingStatistics
    warnings: tuple[str, ...]  # sentences about embeddings and labels that make the metrics doubtful; usually none

    def cmc(self, ranks: int) -> np.ndarray:
        """Share of queries with a match among the first 1, 2, ... images, float64 [min(ranks, gallery)]."""
        ranks = min(ranks, self.gallery)
        return np.bincount(self.first_hit, minlength=ranks).cumsum()[:ranks] / self.queries

    def as_dict(self) -> dict[str, float | int]:
        """mAP, mINP, Rank-1, Rank-5, Rank-10 as fractions, and the numbers of queries and gallery images."""
        curve = self.cmc(max(_RANKS))
        ranks = {f"Rank-{k}": float(curve[min(k, len(curve)) - 1]) for k in _RANKS}
        return {"mAP": self.mAP, "mINP": self.mINP, **ranks, "queries": self.queries, "gallery": self.gallery}

    @property
    def per_query(self) -> dict[str, np.ndarray]:
        """Values [m] float64 of the queries by metric; a metric is their mean."""
        ranks = {f"Rank-{k}": (self.first_hit < k).astype(np.float64) for k in _RANKS}
        return {"mAP": self.average_precision, "mINP": self.inverse_negative_penalty, **ranks}

    @cached_property
    def intervals(self) -> dict[str, list[float]]:
        """The 95 % interval [low, high] of each metric."""
        return {name: list(interval(values, self.query_ids)) for name, values in self.per_query.items()}

    def report(self) -> dict[str, Any]:
        """`as_dict` with `intervals`, `protocol`, `embeddings` and `warnings`."""
        statistics = {"embeddings": self.embeddings.as_dict(), "warnings": list(self.warnings)}
        return {**self.as_dict(), "intervals": self.intervals, "protocol": self.protocol, **statistics}

    @property
    def protocol(self) -> str:
        """One sentence that says how the numbers are measured."""
        order = "squared Euclidean distance of L2-normalised features"
        if self.reranking:
            order += f", {self.reranking}"
        without = f", {self.unmatched} without a match left out" if self.unmatched else ""
        return (
            f"{self.queries} single queries{without}, {self.gallery} gallery images with distractors and without junk, "
            f"images of the query's identity and camera left out; {order}; intervals: 95 % bootstrap over the "
            "identities of the queries."
        )


def score(features: FeatureSet, reranking: ReRanking | None = None, device: torch.device | str = "cpu") -> Score:
    """Score the retrieval by squared Euclidean distance of L2-normalised features, optionally re-ranked.

    Junk (identity -1) is removed from the gallery first. For each query, gallery images of its identity and its camera
    are left out. Average precision is the mean of the precision at each match.

    Raises:
        InputError: nothing can be ranked, see `require_rankable` and `examine_rows`.
    """
    return next(scores(features, [reranking], device))


def scores(
    features: FeatureSet,
    settings: Sequence[ReRanking | None],
    device: torch.device | str = "cpu",
    watch: Callable[[DistanceBlocks], DistanceBlocks] | None = None,
) -> Iterator[Score]:
    """Yield the score of each setting, None for plain distances; the neighbours are found once for all.

    Args:
        watch: Wraps the blocks of each setting, to observe the distances; at the end it holds those of the last one.

    Raises:
        InputError: see `score`.
    """
    retrieval = Retrieval(features, [setting for setting in settings if setting], device)
    for setting in settings:
        with full_precision():
            blocks = retrieval.blocks(setting)
            ranking = rank(retrieval.features, watch(blocks) if watch else blocks)
        yield retrieval.score(ranking, setting)


class Retrieval:
    """A feature set prepared for ranking.

    Attributes:
        features: The feature set without junk.
        queries: Feature rows of the queries.
        gallery: Feature rows of the gallery.
        neighbours: Neighbours of the queries followed by the gallery, enough for all settings; None without settings.
        embeddings: Statistics of the rows.
        warnings: Sentences about rows and labels.

    Raises:
        InputError: see `score`.
    """

    def __init__(self, features: FeatureSet, settings: Sequence[ReRanking], device: torch.device | str) -> None:
        require_rankable(features.query_ids, features.query_cameras, features.gallery_ids, features.gallery_cameras)
        self.features = features.without_junk()
        query, gallery = self.features.query_features, self.features.gallery_features
        with full_precision():
            rows = UniqueRows.joined([query, gallery], device)
            self.queries, self.gallery = rows.part(0, len(query)), rows.part(len(query), len(rows))
            self.embeddings, self.warnings = examine_rows(self.features, rows)
            self.neighbours = None
            if settings:
                self.neighbours = find_neighbours(rows, max(setting.neighbours for setting in settings))

    def blocks(self, setting: ReRanking | None) -> DistanceBlocks:
        """Distances of all queries, re-ranked by a setting or plain for None."""
        if setting is None or self.neighbours is None:
            return distance_blocks(self.queries, self.gallery)
        run_settings = reranked_blocks(self.neighbours, self.queries, self.gallery, [setting])
        return lambda receive: run_settings([receive])

    def score(self, ranking: Ranking, setting: ReRanking | None) -> Score:
        """Score of a ranking; `setting` is recorded in it."""
        first_hit = ranking.first_hit.numpy()
        has_match = first_hit >= 0
        precision, penalty = (
            x.numpy()[has_match] for x in (ranking.average_precision, ranking.inverse_negative_penalty)
        )
        return Score(
            mAP=float(precision.mean()),
            mINP=float(penalty.mean()),
            average_precision=precision,
            inverse_negative_penalty=penalty,
            first_hit=first_hit[has_match],
            query_ids=self.features.query_ids[has_match],
            matched=np.flatnonzero(has_match),
            queries=int(has_match.sum()),
            unmatched=int((~has_match).sum()),
            gallery=len(self.features.gallery_ids),
            reranking=setting,
            embeddings=self.embeddings,
            warnings=tuple(self.warnings),
        )
