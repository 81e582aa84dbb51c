"""Many settings of the re-ranking over one feature set, at little cost each."""

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

    The neighbours are found once, the vectors once for neighbouring settings of one (k1, k2), the distances to the
    gallery once for some of these pairs: settings that differ in lambda alone should follow each other.

    Args:
        features: see `score`.
        settings: one or more.

    Raises:
        InputError: see `score`.
    """
    retrieval = Retrieval(features, settings, device)
    assert retrieval.neighbours is not None
    for some in _passes(settings):
        rankers = [Ranker(retrieval.features) for _ in some]
        with full_precision():
            reranked_blocks(retrieval.neighbours, retrieval.queries, retrieval.gallery, some)(rankers)
        for ranker, setting in zip(rankers, some, strict=True):
            yield retrieval.score(ranker.ranking, setting)


def _passes(settings: Sequence[ReRanking]) -> Iterator[list[ReRanking]]:
    """Parts of the settings for one pass over the distances each."""
    some: list[ReRanking] = []
    for setting in settings:
        if len({other.pair for other in [*some, setting]}) > _PAIRS:
            yield some
            some = []
        some.append(setting)
    yield some
