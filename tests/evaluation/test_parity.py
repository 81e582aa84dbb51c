"""Ranking and re-ranking against the plain implementations, over sets of any shape."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from reid_tune.evaluation.distances import UniqueRows
from reid_tune.evaluation.features import FeatureSet, make_feature_set
from reid_tune.evaluation.neighbours import find_neighbours
from reid_tune.evaluation.rerank import ReRanking, reranked_blocks
from reid_tune.evaluation.score import Score, score

from ..helpers.evaluation_reference import distances, plain_ranking, plain_reranking


@st.composite
def feature_sets(draw: st.DrawFn) -> FeatureSet:
    """Often with many copies of a few images, which tie; with junk and distractors in the gallery."""
    queries, gallery, dimension = draw(st.integers(1, 12)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = random.standard_normal((draw(st.sampled_from([3, 10, 1000])), dimension)).astype(np.float32)
    sides = []
    for count, lowest in ((queries, 1), (gallery, -1)):
        rows = pool[random.integers(len(pool), size=count)]
        sides += [rows, random.integers(lowest, 5, size=count), random.integers(1, 4, size=count)]
    return make_feature_set(*sides)


def assert_equal(found: Score, values: np.ndarray, clean: FeatureSet) -> None:
    precisions, penalties, curves = plain_ranking(values, clean)
    np.testing.assert_allclose(found.average_precision, precisions, atol=1e-6)
    np.testing.assert_allclose(found.inverse_negative_penalty, penalties, atol=1e-6)
    np.testing.assert_allclose(found.cmc(len(clean.gallery_ids)), np.mean(curves, axis=0), atol=1e-6)
    assert found.mAP == pytest.approx(np.mean(precisions), abs=1e-6)


def with_match(features: FeatureSet) -> FeatureSet:
    clean = features.without_junk()
    same = clean.query_ids[:, None] == clean.gallery_ids
    assume((same & (clean.query_cameras[:, None] != clean.gallery_cameras)).any())
    assume(len(np.unique(clean.gallery_ids)) > 1 and (clean.gallery_features != clean.gallery_features[0]).any())
    return clean


@given(features=feature_sets())
def test_plain_scores_are_those_of_the_definition(features: FeatureSet) -> None:
    clean = with_match(features)
    values = distances(clean.query_features, clean.gallery_features)
    assume_apart(values)
    assert_equal(score(features), values, clean)


@given(
    features=feature_sets(),
    k1=st.integers(1, 60),
    k2=st.integers(1, 12),
    weights=st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=1, max_size=2),
)
def test_re_ranked_values_are_those_of_the_paper(features: FeatureSet, k1: int, k2: int, weights: list[float]) -> None:
    query, gallery = features.query_features, features.gallery_features
    both = np.concatenate([query, gallery])
    apart = distances(both, both)
    assume_apart(apart)
    assume((apart.max(axis=1) > 0.1).all())  # the paper divides by it, and so the rounding of float32 grows
    settings = [ReRanking(k1, k2, weight) for weight in weights]
    found = [torch.full((len(query), len(gallery)), torch.nan) for _ in settings]
    neighbours = find_neighbours(UniqueRows.joined([both]), max(setting.neighbours for setting in settings))
    show = reranked_blocks(neighbours, *UniqueRows.of_sides(query, gallery), settings)
    show([lambda members, block, own=own: own.index_copy_(0, members, block) for own in found])
    for own, weight in zip(found, weights, strict=True):
        np.testing.assert_allclose(own, plain_reranking(query, gallery, k1, k2, weight), atol=1e-5)


def assume_apart(values: np.ndarray) -> None:
    """Unlike values of a row differ by more than the rounding of float32."""
    gaps = np.diff(np.sort(values, axis=1), axis=1)
    assume(not ((gaps > 0) & (gaps < 1e-4)).any())
