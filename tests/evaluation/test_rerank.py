"""Re-ranked distances against full matrices and Python sets."""

import numpy as np
import pytest
import torch

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import UniqueRows, distance_blocks, pair_distances, tie_breaking_keys
from reid_tune.evaluation.neighbours import find_neighbours
from reid_tune.evaluation.rerank import ReRanking, parse_reranking, reranked_blocks

from ..helpers.evaluation_reference import distances, made_up, plain_reranking


def matrix(blocks, queries, gallery):
    result = torch.full((queries, gallery), torch.nan)
    blocks(lambda members, block: result.index_copy_(0, members, block))
    assert not result.isnan().any()
    return result.numpy()


def reranked(query, gallery, setting):
    neighbours = find_neighbours(UniqueRows.joined([np.concatenate([query, gallery])]), setting.neighbours)
    show = reranked_blocks(neighbours, *UniqueRows.of_sides(query, gallery), [setting])
    return matrix(lambda receive: show([receive]), len(query), len(gallery))


SETTINGS = [(20, 6, 0.3), (5, 3, 0.3), (9, 6, 0.3), (13, 4, 0.3), (20, 1, 0.3), (20, 6, 0.0), (20, 6, 1.0), (1, 1, 0.3),
            (3, 9, 0.3), (500, 6, 0.3), (500, 500, 0.3)]  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("shape", [(23, 90, 12, 9), (1, 40, 3, 4), (60, 31, 6, 20)])
def test_equals_the_plain_form(setting, shape):
    features = made_up(*shape, seed=sum(shape))
    query, gallery = features.query_features, features.gallery_features
    expected = plain_reranking(query, gallery, *setting)
    np.testing.assert_allclose(reranked(query, gallery, ReRanking(*setting)), expected, atol=1e-5)


def test_equals_the_plain_form_over_several_blocks():
    features = made_up(queries=290, gallery=400, identities=60, noise=0.6)
    query, gallery = features.query_features, features.gallery_features
    expected = plain_reranking(query, gallery, 7, 3, 0.3)
    np.testing.assert_allclose(reranked(query, gallery, ReRanking(7, 3, 0.3)), expected, atol=1e-5)


@pytest.mark.parametrize("setting", [(20, 6, 0.3), (5, 3, 0.3), (4, 2, 0.0)])
@pytest.mark.parametrize("copies", [2, 9])
def test_copies_get_equal_distances(setting, copies):
    features = made_up(queries=20, gallery=40, seed=2)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(40), copies))
    query, gallery = np.repeat(features.query_features, 2, axis=0), features.gallery_features[order]
    result = reranked(query, gallery, ReRanking(*setting))
    expected = plain_reranking(query, gallery, *setting)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    seen = 0
    for original in range(40):
        same, wanted = (values[:, order == original] for values in (result, expected))
        if np.ptp(wanted, axis=1).max() < 1e-12:  # where k1 cuts through copies, they have different neighbours
            assert (same == same[:, :1]).all()
            seen += 1
    assert seen == 40 or copies == 9


def test_all_images_equal():
    row = np.ones((1, 4), np.float32)
    result = reranked(row, np.repeat(row, 8, axis=0), ReRanking(3, 2, 0.3))
    assert np.isfinite(result).all()


def test_neighbours_are_ordered_by_distance_and_index():
    features = made_up(queries=300, gallery=5)
    rows = np.concatenate([features.query_features, features.query_features[::-1]])
    found = find_neighbours(UniqueRows.joined([rows]), 9)
    exact = distances(rows, rows)
    for i in range(len(rows)):
        wanted = sorted(range(len(rows)), key=lambda j: (j != i, exact[i, j], j))[:10]
        assert found.index[i].tolist() == wanted
        for column, j in enumerate(wanted):
            there = found.index[j].tolist()
            assert found.mutual[i, column] == (there.index(i) if i in there else 10)
    np.testing.assert_allclose(found.farthest, exact.max(axis=1), atol=1e-5)


@pytest.mark.parametrize("repeats", [1, 3, 300])
def test_distances_of_equal_rows_are_bit_equal(repeats):
    features = made_up(queries=61, gallery=1, dimension=67)
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(61), repeats)[:1500])
    rows = UniqueRows.joined([features.query_features[order]])
    result = matrix(distance_blocks(rows, rows), len(order), len(order))
    np.testing.assert_allclose(
        result, distances(features.query_features, features.query_features)[order][:, order], atol=1e-5
    )
    _, first = np.unique(order, return_index=True)
    assert (result == result[first[order]][:, first[order]]).all()
    left, right = (torch.from_numpy(i) for i in np.random.default_rng(2).integers(len(order), size=(2, 5000)))
    np.testing.assert_allclose(pair_distances(rows, left, right), result[left, right], atol=1e-5)


def test_negative_zero_is_zero():
    rows = UniqueRows.joined([np.float32([[0.0, 1.0], [-0.0, 1.0], [1.0, 1.0]])])
    assert rows.position[0] == rows.position[1] != rows.position[2]


def test_keys_order_by_value_then_column():
    values = torch.tensor([[0.5, 0.0, 0.5, -1.0, 4.0, torch.inf, 0.0]])
    assert tie_breaking_keys(values).argsort(1).tolist() == [[3, 1, 6, 0, 2, 4, 5]]


def test_parse():
    assert parse_reranking("20,6,0.3") == ReRanking(20, 6, 0.3)
    assert parse_reranking(" 5, 3, 0") == ReRanking(5, 3, 0.0)


@pytest.mark.parametrize("text", ["", "20,6", "20,6,0.3,1", "20;6;0.3", "a,6,0.3", "2.5,6,0.3", "20,6,x"])
def test_parse_refuses(text):
    with pytest.raises(InputError, match="give three numbers such as 20,6,0.3"):
        parse_reranking(text)


@pytest.mark.parametrize(
    ("values", "name"),
    [((0, 6, 0.3), "k1"), ((20, 0, 0.3), "k2"), ((20, 6, 1.1), "lambda_value"), ((20, 6, float("nan")), "lambda_value"),
     ((2.5, 6, 0.3), "k1"), ((20, True, 0.3), "k2")],
)  # fmt: skip
def test_range(values, name):
    with pytest.raises(InputError, match=f"re-ranking {name} is"):
        ReRanking(*values)
