"""The breakdowns against full matrices that are filtered by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.errors import InputError
from reid_tune.evaluation.breakdown import CameraPairs, per_identity
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import scores

from ..helpers.evaluation_reference import distances, made_up, plain_ranking, plain_reranking

SETTINGS = [None, ReRanking(5, 3, 0.3)]


def matrix(features, setting):
    query, gallery = features.query_features, features.gallery_features
    return plain_reranking(query, gallery, 5, 3, 0.3) if setting else distances(query, gallery)


def part(features, queries, images):
    sides = {"query": queries, "gallery": images}
    fields = dataclasses.asdict(features)
    return FeatureSet(**{name: array[sides[name.split("_")[0]]] for name, array in fields.items()})


def slow_pairs(values, features):
    rows = []
    for own in set(features.query_cameras.tolist()):
        for other in set(features.gallery_cameras.tolist()) - {own}:
            queries, images = features.query_cameras == own, features.gallery_cameras == other
            found = plain_ranking(values[queries][:, images], part(features, queries, images))
            precisions, _, curves = found
            if precisions:
                rank_1 = np.mean([curve[0] for curve in curves])
                rows.append((own, other, len(precisions), images.sum(), np.mean(precisions), rank_1))
    return rows


def slow_identities(values, features):
    rows = []
    for identity in set(features.query_ids.tolist()):
        queries, every = features.query_ids == identity, np.full(len(features.gallery_ids), True)
        precisions, penalties, curves = plain_ranking(values[queries], part(features, queries, every))
        if precisions:
            rank_1 = np.mean([curve[0] for curve in curves])
            rows.append((identity, len(precisions), np.mean(precisions), rank_1, np.mean(penalties)))
    return rows


def check(features, setting):
    pairs = CameraPairs(features)
    (score,) = scores(features, [setting], watch=pairs)
    clean = features.without_junk()
    values = matrix(clean, setting)
    found, wanted = [list(row.values()) for row in pairs.rows()], slow_pairs(values, clean)
    np.testing.assert_allclose(sorted(found), sorted(wanted), atol=1e-5)
    people = [list(row.values()) for row in per_identity(score)]
    np.testing.assert_allclose(sorted(people), sorted(slow_identities(values, clean)), atol=1e-5)
    assert [row[-2] for row in found] == sorted(row[-2] for row in found), "the weakest come first"
    assert [row[2] for row in people] == sorted(row[2] for row in people)
    assert sum(row[1] for row in people) == score.queries


@pytest.mark.parametrize("setting", SETTINGS)
@given(
    queries=st.integers(1, 40),
    gallery=st.integers(8, 70),
    identities=st.integers(1, 8),
    cameras=st.integers(2, 5),
    junk=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_pairs_and_identities_equal_a_filtered_matrix(setting, queries, gallery, identities, cameras, junk, seed):
    features = made_up(queries, gallery, 6, identities, cameras, seed)
    ids = features.gallery_ids.copy()
    ids[:junk], ids[len(ids) - junk :] = -1, 0
    try:
        check(dataclasses.replace(features, gallery_ids=ids), setting)
    except InputError as error:
        assert "no query has a match" in str(error) or "any embedding scores 100 %" in str(error)


@pytest.mark.parametrize("setting", SETTINGS)
def test_several_blocks_and_copies_of_queries(setting):
    features = made_up(queries=300, gallery=60, dimension=6)
    copies = np.repeat(features.query_features[:50], 6, axis=0)
    check(dataclasses.replace(features, query_features=copies), setting)


def test_rows_are_those_of_the_last_setting_and_leave_the_score_alone():
    features = made_up(seed=3)
    pairs = CameraPairs(features)
    rows = []
    for score, alone in zip(scores(features, SETTINGS, watch=pairs), scores(features, SETTINGS), strict=True):
        assert score.as_dict() == alone.as_dict()
        rows.append(pairs.rows())
    assert rows[0] != rows[1]
    for setting, found in zip(SETTINGS, rows, strict=True):
        single = CameraPairs(features)
        list(scores(features, [setting], watch=single))
        assert single.rows() == found


def test_rows_by_name():
    features = made_up(queries=2, gallery=3, identities=1)
    features = dataclasses.replace(
        features,
        query_features=np.float32([[1, 0], [1, 0]]),
        query_ids=np.array([7, 8]),
        query_cameras=np.array([1, 2]),
        gallery_features=np.float32([[1, 0], [1, 1], [1, 0.1]]),
        gallery_ids=np.array([0, 7, 8]),
        gallery_cameras=np.array([3, 3, 4]),
    )
    pairs = CameraPairs(features)
    (score,) = scores(features, [None], watch=pairs)
    assert pairs.rows() == [
        {"query_camera": 1, "gallery_camera": 3, "queries": 1, "gallery": 2, "mAP": 0.5, "Rank-1": 0.0},
        {"query_camera": 2, "gallery_camera": 4, "queries": 1, "gallery": 1, "mAP": 1.0, "Rank-1": 1.0},
    ]
    assert per_identity(score) == [
        {"identity": 7, "queries": 1, "mAP": pytest.approx(1 / 3), "Rank-1": 0.0, "mINP": pytest.approx(1 / 3)},
        {"identity": 8, "queries": 1, "mAP": 0.5, "Rank-1": 0.0, "mINP": 0.5},
    ]
