"""The metrics against a loop over queries, and the rules of who counts."""

import dataclasses

import numpy as np
import pytest
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation import distances as blocks
from reid_tune.evaluation.features import make_feature_set
from reid_tune.evaluation.intervals import interval
from reid_tune.evaluation.ranking import rank
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import score, scores

from ..helpers.evaluation_reference import distances, made_up, plain_ranking, plain_reranking


def check(result, matrix, features):
    precisions, penalties, curves = plain_ranking(matrix, features)
    np.testing.assert_allclose(result.average_precision, precisions, atol=1e-5)
    np.testing.assert_allclose(result.inverse_negative_penalty, penalties, atol=1e-5)
    np.testing.assert_allclose(result.cmc(50), np.mean(curves, axis=0)[:50], atol=1e-5)
    assert result.mAP == pytest.approx(np.mean(precisions), abs=1e-5)
    assert result.mINP == pytest.approx(np.mean(penalties), abs=1e-5)
    assert (result.queries, result.unmatched) == (len(precisions), len(matrix) - len(precisions))
    assert len(result.query_ids) == result.queries


@pytest.mark.parametrize(
    ("queries", "gallery", "dimension", "identities"),
    [(23, 90, 12, 9), (1, 40, 3, 2), (300, 61, 8, 30), (40, 700, 5, 50)],
)
def test_metrics_equal_a_loop_over_queries(queries, gallery, dimension, identities):
    features = made_up(queries, gallery, dimension, identities, seed=queries)
    check(score(features), distances(features.query_features, features.gallery_features), features)


@pytest.mark.parametrize("setting", [ReRanking(), ReRanking(5, 3, 0.3), ReRanking(9, 1, 0.5)])
@pytest.mark.parametrize("seed", [1, 2])
def test_reranked_metrics_equal_a_loop_over_queries(setting, seed):
    features = made_up(seed=seed)
    matrix = plain_reranking(features.query_features, features.gallery_features, *dataclasses.astuple(setting))
    check(score(features, setting), matrix, features)


def test_average_precision_is_the_mean_precision_at_hits():
    # Hits at ranks 1 and 3: (1/1 + 2/3) / 2; a trapezoidal rule would give 0.75 or 0.79.
    angles = np.array([0.1, 0.2, 0.3])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    features = make_feature_set(
        np.float32([[1, 0]]), np.array([7]), np.array([1]), gallery, np.array([7, 8, 7]), np.full(3, 2)
    )
    result = score(features)
    assert result.average_precision == pytest.approx([5 / 6])
    assert result.inverse_negative_penalty == pytest.approx([2 / 3])
    assert result.as_dict() == {
        "mAP": pytest.approx(5 / 6),
        "mINP": pytest.approx(2 / 3),
        "Rank-1": 1.0,
        "Rank-5": 1.0,
        "Rank-10": 1.0,
        "queries": 1,
        "gallery": 3,
    }
    assert [type(value) for value in result.as_dict().values()] == [float] * 5 + [int] * 2


@pytest.mark.parametrize("setting", [None, ReRanking(5, 3, 0.3)])
def test_junk_is_dropped_and_distractors_are_kept(setting):
    features = made_up(seed=3)
    ids = features.gallery_ids.copy()
    ids[::7], ids[1::7] = -1, 0
    result = score(dataclasses.replace(features, gallery_ids=ids), setting)
    kept = ids != -1
    clean = dataclasses.replace(
        features,
        gallery_features=features.gallery_features[kept],
        gallery_ids=ids[kept],
        gallery_cameras=features.gallery_cameras[kept],
    )
    query, gallery = clean.query_features, clean.gallery_features
    matrix = plain_reranking(query, gallery, 5, 3, 0.3) if setting else distances(query, gallery)
    check(result, matrix, clean)
    assert result.gallery == kept.sum() < len(ids)
    assert (clean.gallery_ids == 0).any()


def test_images_of_the_own_camera_do_not_count():
    features = made_up(queries=1, gallery=4, cameras=1, identities=1)
    row = features.query_features
    sides = {
        "gallery_features": np.concatenate([row, np.roll(row, 1), row, -row]),
        "gallery_ids": np.array([1, 1, 1, 2]),
        "gallery_cameras": np.array([1, 2, 1, 1]),
    }
    result = score(dataclasses.replace(features, **sides))
    assert (result.mAP, result.mINP, result.cmc(1)[0]) == (1.0, 1.0, 1.0)


def test_ties_go_by_gallery_index():
    features = made_up(queries=2, gallery=5, identities=1)
    row = features.query_features[:1]
    features = make_feature_set(
        np.repeat(row, 2, axis=0), np.array([4, 5]), np.array([1, 1]), row * np.array([[1], [1], [1], [1], [1], [-1]]),
        np.array([9, 4, 9, 5, 4, 9]), np.full(6, 2),
    )  # fmt: skip
    result = score(features)
    assert result.average_precision == pytest.approx([(1 / 2 + 2 / 5) / 2, 1 / 4])


@pytest.mark.parametrize("setting", [None, ReRanking(9, 4, 0.3), ReRanking(5, 1, 0.0)])
def test_copies_of_images_tie(setting):
    # Three copies of the gallery at places that blocks and kernels treat differently.
    features = made_up(queries=150, gallery=333, dimension=37, identities=40)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(333), 3))
    copies = dataclasses.replace(
        features,
        gallery_features=features.gallery_features[order],
        gallery_ids=np.arange(999),  # nobody ties with a copy of the same identity: only the index decides
        gallery_cameras=np.full(999, 9),
        query_ids=np.random.default_rng(1).integers(999, size=150),
    )
    first = {original: place for place, original in reversed(list(enumerate(order)))}
    at_first = np.array([first[order[identity]] for identity in copies.query_ids])
    result, ahead = (score(dataclasses.replace(copies, query_ids=ids), setting) for ids in (copies.query_ids, at_first))
    between = [(order[:own] == order[own]).sum() for own in copies.query_ids]
    if setting is None or setting.lambda_value:
        assert (np.round(1 / result.average_precision - 1 / ahead.average_precision) == between).all()
    else:
        assert (result.average_precision <= ahead.average_precision).all()


def test_scores_of_many_settings_equal_single_scores():
    features = made_up(seed=5)
    settings = [ReRanking(), None, ReRanking(5, 12, 0.1), ReRanking(3, 1, 1.0)]
    for together, setting in zip(scores(features, settings), settings, strict=True):
        assert together.as_dict() == score(features, setting).as_dict()


def test_lambda_one_equals_plain_distances():
    features = made_up(seed=6)
    assert score(features, ReRanking(5, 3, 1.0)).mAP == pytest.approx(score(features).mAP, abs=1e-6)


def test_scale_of_the_features_does_not_matter():
    features = made_up(seed=7)
    scaled = dataclasses.replace(features, query_features=features.query_features * np.float32(2.0**100))
    assert score(scaled).as_dict() == score(features).as_dict()


def test_number_of_threads_stays():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        score(made_up(), ReRanking())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_precision_chosen_for_training_does_not_matter():
    features = made_up(seed=8)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        result = score(features, ReRanking())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert result.as_dict() == score(features, ReRanking()).as_dict()


@pytest.mark.parametrize("setting", [None, ReRanking(5, 3, 0.3)])
def test_every_metric_has_the_interval_of_its_queries(setting):
    features = made_up(queries=40, seed=9)
    query, gallery = features.query_features, features.gallery_features
    matrix = plain_reranking(query, gallery, 5, 3, 0.3) if setting else distances(query, gallery)
    precisions, penalties, curves = plain_ranking(matrix, features)
    result = score(features, setting)
    report = result.report()
    assert {name: report[name] for name in result.as_dict()} == result.as_dict()
    assert set(report) - set(result.as_dict()) == {"intervals", "protocol", "embeddings", "warnings"}
    ids = result.query_ids
    wanted = {"mAP": precisions, "mINP": penalties} | {f"Rank-{k}": [c[k - 1] for c in curves] for k in (1, 5, 10)}
    assert list(report["intervals"]) == list(wanted)
    for name, values in wanted.items():
        assert report["intervals"][name] == pytest.approx(list(interval(np.array(values, float), ids)), abs=1e-5)
        low, high = report["intervals"][name]
        assert low <= report[name] <= high
    assert low < high or name == "Rank-10"
    assert ("k1 = 5, k2 = 3, lambda = 0.3" in report["protocol"]) == (setting is not None)
    assert f"{result.queries} single queries" in report["protocol"]


def test_queries_without_a_match_are_told():
    features = made_up(queries=30, gallery=20, identities=15)
    result = score(features)
    assert result.unmatched > 0 and f"{result.unmatched} without a match left out" in result.protocol


def test_many_ranks_of_few_images():
    assert len(score(made_up(gallery=20)).cmc(50)) == 20
    assert len(score(made_up(gallery=60)).cmc(50)) == 50


def test_ranking_of_queries_in_any_order_of_blocks():
    features = made_up()
    rows, columns = (blocks.UniqueRows.joined([x]) for x in (features.query_features, features.gallery_features))
    matrix = torch.empty(len(rows), len(columns))
    blocks.distance_blocks(rows, columns)(lambda members, block: matrix.index_copy_(0, members, block))
    shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).split(7)
    whole = rank(features, lambda receive: receive(torch.arange(len(rows)), matrix.clone()))
    parts = rank(features, lambda receive: [receive(some, matrix[some]) for some in shuffled])
    for name in ("average_precision", "inverse_negative_penalty", "first_hit"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), equal_nan=True)


def test_no_gallery_left():
    features = made_up()
    with pytest.raises(InputError, match="every gallery image is junk"):
        score(dataclasses.replace(features, gallery_ids=np.full_like(features.gallery_ids, -1)))


def test_no_query_with_a_match():
    features = made_up(cameras=1)
    with pytest.raises(InputError, match="no query has a match"):
        score(features)
