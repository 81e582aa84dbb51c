"""Rows that share their memory, and blocks of many columns."""

import dataclasses

import numpy as np
import pytest
import torch

from reid_tune.evaluation.distances import UniqueRows, deterministic_algorithms, distance_blocks, full_precision
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import score

from ..helpers.evaluation_reference import distances, made_up, plain_ranking, plain_reranking


def unit(features):
    return torch.nn.functional.normalize(torch.from_numpy(features).double(), dim=1).float()


def test_rows_of_several_arrays_are_those_of_each():
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((count, 5), dtype=np.float32) for count in (700, 300))
    rows = UniqueRows.joined([first, second])
    for part, wanted in ((rows.part(0, 700), first), (rows.part(700, 1000), second)):
        torch.testing.assert_close(part.distinct[part.position], unit(wanted))
        assert part.distinct.untyped_storage().data_ptr() == rows.distinct.untyped_storage().data_ptr()


@pytest.mark.parametrize("order", ["F", "C"])
def test_a_row_of_another_part_stands_where_it_stood(order):
    features = made_up(queries=9, gallery=9)
    first = features.query_features
    second = np.asarray(np.concatenate([features.gallery_features, first[[4, 1]], first[[4]]]), order=order)
    rows = UniqueRows.joined([first, second])
    assert len(rows.distinct) == 18 and rows.position[[18, 19, 20]].tolist() == [4, 1, 4]
    part = rows.part(9, 21)
    assert len(part.distinct) == 11 and part.position[9] == part.position[11] != part.position[10]
    torch.testing.assert_close(part.distinct[part.position], unit(second))


@pytest.mark.parametrize("setting", [None, ReRanking(5, 3, 0.3)])
@pytest.mark.parametrize("places", [[80, 3, 3, 41, 7], range(89, -1, -1)])
def test_queries_that_are_gallery_images_too(setting, places):
    features = made_up(seed=11)
    chosen = [array[list(places)] for array in (features.gallery_features, features.gallery_ids)]
    features = dataclasses.replace(
        features, query_features=chosen[0], query_ids=chosen[1], query_cameras=np.full(len(chosen[1]), 9)
    )
    query, gallery = features.query_features, features.gallery_features
    matrix = plain_reranking(query, gallery, 5, 3, 0.3) if setting else distances(query, gallery)
    precisions, _, _ = plain_ranking(np.round(matrix, 6), features)
    np.testing.assert_allclose(score(features, setting).average_precision, precisions, atol=1e-5)


def test_of_many_columns_a_block_has_fewer_rows():
    rng = np.random.default_rng(0)
    rows, columns = (UniqueRows.joined([rng.standard_normal((count, 3), dtype=np.float32)]) for count in (300, 150_000))
    seen, heights = [], []

    def receive(members, block):
        wanted = (rows.distinct[members] - columns.distinct[149_990:, None]).square().sum(2).T
        torch.testing.assert_close(block[:, 149_990:], wanted, atol=1e-5, rtol=0)
        seen.extend(members.tolist())
        heights.append(len(block))

    with full_precision():
        distance_blocks(rows, columns)(receive)
    assert sorted(seen) == list(range(300)) and max(heights) < 150


@pytest.mark.parametrize("before", [(False, False), (True, True), (True, False)])
def test_repeatable_restores_the_choice_before_it(before):
    def chosen():
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    original = chosen()
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    try:
        with pytest.raises(KeyError), deterministic_algorithms(True):
            assert chosen() == (True, False)
            raise KeyError
        assert chosen() == before
        with deterministic_algorithms(False):
            assert chosen() == before
    finally:
        torch.use_deterministic_algorithms(original[0], warn_only=original[1])


def test_repeatable_scores_are_the_usual_ones():
    features, setting = made_up(queries=200, gallery=500), ReRanking(9, 3, 0.3)
    with deterministic_algorithms(True):
        found = score(features, setting)
    np.testing.assert_array_equal(found.average_precision, score(features, setting).average_precision)
