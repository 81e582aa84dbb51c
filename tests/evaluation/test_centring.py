"""Embeddings that lie close together: ranked by their distances, not by the rounding of float32."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from reid_tune.evaluation import distances as module
from reid_tune.evaluation.centring import CLOSE, find_centre, sample_indices
from reid_tune.evaluation.distances import UniqueRows, distance_blocks, pair_distances
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.openset import open_set
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import Score, score
from reid_tune.evaluation.thresholds import PairDistances

from ..helpers.evaluation_reference import distances, made_up, plain_ranking, plain_reranking


def close_together(spread: float, queries: int = 30, gallery: int = 120, dimension: int = 64) -> FeatureSet:
    """One row for all, plus a little of what tells identities apart."""
    features = made_up(queries, gallery, dimension, identities=12, seed=4, noise=1.0)
    rows = (features.query_features, features.gallery_features)
    query, gallery_rows = ((1 + spread * row).astype(np.float32) for row in rows)
    return dataclasses.replace(features, query_features=query, gallery_features=gallery_rows)


def reference(features: FeatureSet, setting: ReRanking | None) -> list[float]:
    sides = (features.query_features, features.gallery_features)
    matrix = plain_reranking(*sides, setting.k1, setting.k2, setting.lambda_value) if setting else distances(*sides)
    return plain_ranking(matrix, features)[0]


SPREADS = [1.0, 1e-1, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5]


@pytest.mark.parametrize("setting", [None, ReRanking(6, 3, 0.3)])
@pytest.mark.parametrize("spread", SPREADS)
def test_close_rows_are_ranked_as_in_float64(spread: float, setting: ReRanking | None) -> None:
    features = close_together(spread)
    expected = reference(features, setting)
    assert score(features, setting).mAP == pytest.approx(np.mean(expected), abs=2e-3)
    assert np.mean(expected) > 0.7, "the identities can be told apart"


def test_without_the_centre_the_ranking_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    features = close_together(1e-4)
    monkeypatch.setattr(module, "find_centre", lambda sample: None)
    assert score(features).mAP < np.mean(reference(features, None)) - 0.3


@pytest.mark.parametrize(
    "outliers",
    [
        pytest.param(lambda rows: rows, id="none"),
        pytest.param(lambda rows: np.concatenate([rows[:-6], -rows[-6:]]), id="a few opposite rows"),
        pytest.param(lambda rows: np.concatenate([rows[:-20], rows[-20:] * [1e4] + np.eye(64)[:20]]), id="a sixth"),
        pytest.param(lambda rows: rows * 1e30, id="very long rows"),
        pytest.param(lambda rows: rows * 1e-30, id="very short rows"),
    ],
)
def test_outliers_and_lengths_do_not_hide_it(outliers: Callable[[np.ndarray], np.ndarray]) -> None:
    features = close_together(1e-4)
    rows = outliers(features.gallery_features.astype(np.float64)).astype(np.float32)
    features = dataclasses.replace(features, gallery_features=rows)
    assert score(features).mAP == pytest.approx(np.mean(reference(features, None)), abs=0.01)


def test_copies_of_close_rows_tie() -> None:
    # Three copies of the gallery: of equal distances the lower gallery index comes first.
    features = close_together(1e-4, gallery=70)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(70), 3))
    rows = features.gallery_features[order]
    copies = dataclasses.replace(
        features, gallery_features=rows, gallery_ids=features.gallery_ids[order], gallery_cameras=np.full(210, 9)
    )
    matrix = distances(features.query_features, features.gallery_features)[:, order]
    np.testing.assert_allclose(score(copies).average_precision, plain_ranking(matrix, copies)[0], atol=0.02)
    queries, gallery = UniqueRows.of_sides(copies.query_features, copies.gallery_features)
    block = torch.empty(len(queries), len(gallery))
    distance_blocks(queries, gallery)(lambda members, part: block.index_copy_(0, members, part))
    first = {original: place for place, original in reversed(list(enumerate(order)))}
    assert torch.equal(block, block[:, [first[original] for original in order]])


def test_distances_of_pairs_are_those_of_the_blocks() -> None:
    features = close_together(1e-4)
    rows = UniqueRows.joined([features.gallery_features])
    left, right = (torch.from_numpy(side) for side in np.random.default_rng(0).integers(120, size=(2, 300)))
    expected = distances(features.gallery_features, features.gallery_features)[left, right]
    np.testing.assert_allclose(pair_distances(rows, left, right), expected, atol=1e-3 * expected.max())


def test_rows_with_different_centres_are_not_compared() -> None:
    features = close_together(1e-4)
    sides = (UniqueRows.joined([rows]) for rows in (features.query_features, features.gallery_features))
    with pytest.raises(AssertionError, match="different centres"):
        distance_blocks(*sides)


def test_threshold_and_open_set_see_the_small_distances() -> None:
    features = close_together(1e-4, queries=200, gallery=300)
    pairs = PairDistances.of(features)
    matrix = distances(features.query_features, features.gallery_features)
    threshold = pairs.threshold(0.05)
    different = np.sort(matrix[features.query_ids[:, None] != features.gallery_ids])
    expected = different[int(0.05 * len(different)) - 1]
    assert threshold.squared_distance == pytest.approx(expected, rel=0.01) and threshold.eer < 0.2
    rows = open_set(features, far=0.2, sizes=(3,)).rows
    assert rows and rows[0]["DIR"] > 0.5


@pytest.mark.parametrize(
    "features",
    [
        pytest.param(made_up(noise=0.01), id="tight clusters"),
        pytest.param(made_up(queries=3, gallery=4, identities=2), id="few images"),
        pytest.param(made_up(dimension=512), id="wide"),
        pytest.param(close_together(0.1), id="a common component"),
        pytest.param(close_together(0.03), id="a large common component"),
        pytest.param(made_up(queries=1, gallery=2), id="three rows"),
        pytest.param(made_up(queries=800, gallery=900), id="many images"),
        pytest.param(made_up(dimension=2), id="two columns"),
    ],
)
def test_ordinary_data_are_not_centred(features: FeatureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = UniqueRows.joined([features.query_features, features.gallery_features])
    assert rows.centre is None and rows.squares is None
    usual = scored(features)
    monkeypatch.setattr(module, "find_centre", lambda sample: None)
    assert scored(features).as_dict() == usual.as_dict()


def scored(features: FeatureSet) -> Score:
    """A score that needs no match."""
    ids = np.full_like(features.gallery_ids, 1)
    ids[::2] = 2
    sides = {"query_ids": np.ones_like(features.query_ids), "query_cameras": np.full_like(features.query_cameras, 99)}
    return score(dataclasses.replace(features, gallery_ids=ids, **sides), ReRanking(5, 3, 0.3))


def test_the_centre_of_one_row_and_of_equal_rows() -> None:
    assert find_centre(np.ones((1, 3), np.float32)) is None
    np.testing.assert_allclose(find_centre(np.float32([[1, 1], [2, 2]])), np.full(2, 0.5**0.5))
    apart = np.sqrt(2 * CLOSE)
    assert find_centre(np.array([[1, 0], [1, apart]])) is None
    assert find_centre(np.array([[1, 0], [1, apart / 2]])) is not None


@pytest.mark.parametrize(("count", "length"), [(1, 1), (2, 2), (63, 63), (64, 64), (65, 64), (10**7, 64)])
def test_the_sample_covers_all_rows(count: int, length: int) -> None:
    indices = sample_indices(count)
    assert len(indices) == length and indices[0] == 0 and indices[-1] == count - 1
