"""Scores of many re-ranking settings on one feature set, sharing the work."""

from collections.abc import Iterator, Sequence

import torch

from reid_tune.evaluation.distances import full_precision
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.ranking import Ranker
from reid_tune.evaluation.rerank import ReRanking, reranked_blocks
from reid_tune.evaluation.score import Retrieval, Score

__all__ = ["grid_scores"]

_PAIRS = 4  # whose vectors are in memory at once


def grid_scores(
    features: FeatureSet, settings: Sequence[ReRanking], device: torch.device | str = "cpu"
) -> Iterator[Score]:
    """Yield the score of each setting, in their order; equal to `score` with that setting.

    The neighbours are found once, the vectors once for consecutive settings with the same (k1, k2), and the distances
    to the gallery once for up to 4 such pairs: settings that differ only in lambda should follow each other.

    Args:
        features: Queries and gallery, see `score`.
        settings: One or more settings.

    Raises:
        InputError: see `score`.
    """
    retrieval = Retrieval(features, settings, device)
    assert retrieval.neighbours is not None
    for part in _passes(settings):
        rankers = [Ranker(retrieval.features) for _ in part]
        with full_precision():
            reranked_blocks(retrieval.neighbours, retrieval.queries, retrieval.gallery, part)(rankers)
        for ranker, setting in zip(rankers, part, strict=True):
            yield retrieval.score(ranker.ranking, setting)


def _passes(settings: Sequence[ReRanking]) -> Iterator[list[ReRanking]]:
    """Split the settings into parts, each for one pass over the distances."""
    part: list[ReRanking] = []
    for setting in settings:
        if len({other.pair for other in [*part, setting]}) > _PAIRS:
            yield part
            part = []
        part.append(setting)
    yield part
