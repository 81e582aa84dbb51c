"""The best matches of sampled queries, against a loop over one query at a time."""

import dataclasses

import numpy as np
import pytest

from reid_tune.evaluation.matches import Watch, best_matches, choose_queries
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import scores

from .reference import distances, made_up, plain_reranking


def slow_matches(values, features, query, ranks):
    """Gallery indices in order, one image after the other."""
    kept = []
    for image in sorted(range(len(features.gallery_ids)), key=lambda image: (values[image], image)):
        same = features.gallery_ids[image] == features.query_ids[query]
        if not (same and features.gallery_cameras[image] == features.query_cameras[query]):
            kept.append(image)
    return kept[:ranks]


@pytest.mark.parametrize("setting", [None, ReRanking(5, 3, 0.3)])
def test_matches_equal_a_loop_over_the_gallery(setting):
    features = made_up(seed=4)
    chosen = choose_queries(features, 6, seed=3)
    watch = Watch(chosen, len(features.gallery_ids))
    list(scores(features, [None, setting] if setting else [None], watch=watch))
    query, gallery = features.query_features, features.gallery_features
    values = plain_reranking(query, gallery, 5, 3, 0.3) if setting else distances(query, gallery)
    found = best_matches(features, watch, 12)
    assert [match.query for match in found] == chosen.tolist() and len(found) == 6
    for match in found:
        assert match.gallery.tolist() == slow_matches(values[match.query], features, match.query, 12)
        identity, camera = features.query_ids[match.query], features.query_cameras[match.query]
        assert match.correct.tolist() == (features.gallery_ids[match.gallery] == identity).tolist()
        assert not (match.correct & (features.gallery_cameras[match.gallery] == camera)).any()


def test_junk_is_in_no_row():
    features = made_up(seed=5)
    ids = features.gallery_ids.copy()
    ids[::3] = -1
    features = dataclasses.replace(features, gallery_ids=ids)
    clean = features.without_junk()
    watch = Watch(choose_queries(features, 4, seed=0), len(clean.gallery_ids))
    list(scores(features, [None], watch=watch))
    for match in best_matches(features, watch, 5):
        values = distances(clean.query_features, clean.gallery_features)[match.query]
        assert match.gallery.tolist() == slow_matches(values, clean, match.query, 5)


def test_a_gallery_smaller_than_the_ranks_gives_what_there_is():
    features = made_up(queries=1, gallery=3, identities=1, cameras=1)
    features = dataclasses.replace(features, gallery_cameras=np.array([1, 2, 3]))
    watch = Watch(choose_queries(features, 10, seed=0), 3)
    list(scores(features, [None], watch=watch))
    (match,) = best_matches(features, watch, 10)
    assert sorted(match.gallery) == [1, 2] and match.correct.all()


def test_queries_with_a_match_are_drawn_by_the_seed():
    features = made_up(queries=60, gallery=40, identities=30, cameras=2, seed=1)
    matched = [
        query
        for query in range(60)
        if ((features.gallery_ids == features.query_ids[query])
            & (features.gallery_cameras != features.query_cameras[query])).any()
    ]  # fmt: skip
    assert 10 < len(matched) < 60
    assert choose_queries(features, 60, seed=0).tolist() == matched
    first, again, other = (choose_queries(features, 8, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other and first == sorted(first) and set(first) < set(matched) and len(first) == 8
