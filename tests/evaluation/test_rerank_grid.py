"""Many settings at once against each setting alone."""

from itertools import product

import numpy as np
import pytest

from reid_tune.errors import InputError
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.rerank_grid import grid_scores
from reid_tune.evaluation.score import score

from ..helpers.evaluation_reference import made_up


def test_each_setting_scores_as_if_it_were_alone():
    features = made_up(queries=20, gallery=140, identities=15, noise=0.8)
    settings = [ReRanking(*values) for values in product((1, 5, 20, 1000), (1, 4), (0.0, 0.3, 1.0))]
    found = list(grid_scores(features, settings))
    assert [one.reranking for one in found] == settings
    for one in found:
        alone = score(features, one.reranking)
        assert one.as_dict() == alone.as_dict()
        np.testing.assert_array_equal(one.average_precision, alone.average_precision)
    assert len({one.mAP for one in found}) > len(found) // 2


def test_settings_come_in_any_order_and_repeated():
    features = made_up(queries=10, gallery=60, identities=8)
    settings = [ReRanking(k1, 3, weight) for weight in (0.3, 0.6) for k1 in (3, 5, 7, 9, 11, 3)]
    found = list(grid_scores(features, settings))
    assert [one.as_dict() for one in found] == [score(features, setting).as_dict() for setting in settings]


def test_a_set_without_matches_is_refused():
    features = made_up(queries=10, gallery=60, identities=8)
    features.gallery_ids[:] = 999
    with pytest.raises(InputError, match="no query has a match"):
        list(grid_scores(features, [ReRanking()]))
