"""The best matches of chosen queries, against a loop over one query at a time."""

import dataclasses

import numpy as np
import pytest

from reid_tune.evaluation.features import make_feature_set
from reid_tune.evaluation.matches import TopMatches, hardest_queries, random_queries
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import score, scores

from ..helpers.evaluation_reference import distances, made_up, plain_ranking, plain_reranking


def slow_matches(values, features, query, ranks):
    """Gallery indices in order, one image after the other."""
    kept = []
    for image in sorted(range(len(features.gallery_ids)), key=lambda image: (values[image], image)):
        same = features.gallery_ids[image] == features.query_ids[query]
        if not (same and features.gallery_cameras[image] == features.query_cameras[query]):
            kept.append(image)
    return kept[:ranks]


def watched(features, ranks, settings=(None,)):
    watch = TopMatches(features, ranks)
    *_, last = scores(features, settings, watch=watch)
    return watch, last


@pytest.mark.parametrize("setting", [None, ReRanking(5, 3, 0.3)])
def test_matches_equal_a_loop_over_the_gallery(setting):
    features = made_up(queries=300, seed=4, cameras=2)
    watch, _ = watched(features, 12, (None, setting) if setting else (None,))
    query, gallery = features.query_features, features.gallery_features
    values = plain_reranking(query, gallery, 5, 3, 0.3) if setting else distances(query, gallery)
    found = watch.matches(np.arange(300))
    assert [match.query for match in found] == list(range(300))
    left_out = 0
    for match in found:
        assert match.gallery.tolist() == slow_matches(values[match.query], features, match.query, 12)
        identity, camera = features.query_ids[match.query], features.query_cameras[match.query]
        assert match.correct.tolist() == (features.gallery_ids[match.gallery] == identity).tolist()
        own_camera = (features.gallery_ids == identity) & (features.gallery_cameras == camera)
        assert not own_camera[match.gallery].any()
        left_out += own_camera[values[match.query].argsort()[:12]].any()
    assert left_out > 100, "images of the own camera would stand among the first"


def test_watching_changes_no_score():
    features = made_up(queries=60, seed=6)
    for setting in (None, ReRanking(5, 3, 0.3)):
        _, seen = watched(features, 5, (setting,))
        assert seen.as_dict() == score(features, setting).as_dict()


def test_junk_is_in_no_row():
    features = made_up(seed=5)
    ids = features.gallery_ids.copy()
    ids[::3] = -1
    features = dataclasses.replace(features, gallery_ids=ids)
    clean = features.without_junk()
    watch, _ = watched(features, 5)
    values = distances(clean.query_features, clean.gallery_features)
    for match in watch.matches(np.arange(23)):
        assert match.gallery.tolist() == slow_matches(values[match.query], clean, match.query, 5)


def test_of_copies_the_first_comes_first():
    row = np.ones((1, 4), np.float32)
    gallery = np.concatenate([np.repeat(row, 6, axis=0), -row])
    ids = np.array([2, 1, 2, 2, 1, 2, 3])
    features = make_feature_set(row, np.array([1]), np.array([1]), gallery, ids, np.full(7, 2))
    watch, _ = watched(features, 3)
    (match,) = watch.matches(np.array([0]))
    assert match.gallery.tolist() == [0, 1, 2] and match.correct.tolist() == [False, True, False]


def test_a_gallery_smaller_than_the_ranks_gives_what_there_is():
    features = made_up(queries=1, gallery=4, identities=1, cameras=1)
    labels = {"gallery_ids": np.array([1, 1, 1, 2]), "gallery_cameras": np.array([1, 2, 3, 1])}
    watch, _ = watched(dataclasses.replace(features, **labels), 10)
    (match,) = watch.matches(np.array([0]))
    assert sorted(match.gallery) == [1, 2, 3] and match.correct.sum() == 2


def some_unmatched():
    """Features, the score, and the queries with a match."""
    features = made_up(queries=60, gallery=40, identities=30, cameras=2, seed=1)
    matched = [
        query
        for query in range(60)
        if ((features.gallery_ids == features.query_ids[query])
            & (features.gallery_cameras != features.query_cameras[query])).any()
    ]  # fmt: skip
    assert 10 < len(matched) < 60
    return features, score(features), matched


def test_random_queries_have_a_match_and_are_drawn_by_the_seed():
    _, found, matched = some_unmatched()
    assert found.matched.tolist() == matched
    assert random_queries(found, 60, seed=0).tolist() == matched
    first, again, other = (random_queries(found, 8, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other and first == sorted(first) and set(first) < set(matched) and len(first) == 8


def test_the_hardest_queries_have_the_lowest_average_precision():
    features, found, matched = some_unmatched()
    precisions, _, _ = plain_ranking(distances(features.query_features, features.gallery_features), features)
    order = [query for _, query in sorted(zip(np.round(precisions, 9), matched, strict=True))]
    assert hardest_queries(found, 7).tolist() == order[:7]
    assert hardest_queries(found, 500).tolist() == order
    assert len(set(precisions)) < len(precisions), "there are ties, which go by the index"
