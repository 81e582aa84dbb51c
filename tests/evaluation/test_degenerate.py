"""Data that would give a plausible score whatever the embeddings: refused, or told in one sentence."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from reid_tune.errors import InputError
from reid_tune.evaluation.degenerate import examine_features
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.rerank import ReRanking
from reid_tune.evaluation.score import score

from ..helpers.evaluation_reference import made_up

GOOD = made_up(queries=40, gallery=120, dimension=16, noise=0.4)


def changed(**arrays: Any) -> FeatureSet:
    return dataclasses.replace(GOOD, **arrays)


def labels(query_ids: int, query_cameras: int, gallery_ids: int, gallery_cameras: int) -> FeatureSet:
    values = {"query_ids": query_ids, "query_cameras": query_cameras}
    values |= {"gallery_ids": gallery_ids, "gallery_cameras": gallery_cameras}
    return changed(**{name: np.full_like(getattr(GOOD, name), value) for name, value in values.items()})


def few_rows(count: int) -> np.ndarray:
    return GOOD.gallery_features[np.arange(120) % count]


def near_one_point(rows: np.ndarray, spread: float) -> np.ndarray:
    return (1 + spread * rows).astype(np.float32)


@pytest.mark.parametrize("setting", [None, ReRanking(4, 2, 0.3)])
@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (changed(gallery_features=few_rows(1)), "nothing can be ranked: .* as all 120 gallery rows are equal; check"),
        (changed(gallery_features=few_rows(1), query_features=few_rows(1)[:40]), "as all 120 gallery rows are equal"),
        (labels(3, 1, 3, 2), "every gallery image without junk has identity 3, so that any embedding scores 100 %"),
        (labels(0, 1, 0, 2), "every gallery image without junk has identity 0, so that"),
        (labels(3, 1, 3, 1), "no query has a match .* all images have camera 1; number the cameras, or"),
        (changed(query_cameras=np.zeros(40, int), gallery_cameras=np.zeros(120, int)), "all images have camera 0"),
        (labels(3, 1, 4, 2), "no query has a match .* the gallery has none of the queries' identities; check"),
        (labels(-1, 1, -1, 2), "every gallery image is junk"),
        (labels(-1, 1, 4, 2), "no query has a match .* the gallery has none of the queries' identities"),
        (
            changed(
                query_cameras=np.full(40, 1),
                gallery_cameras=np.where(GOOD.gallery_ids < 5, 1, 2),
                gallery_ids=np.where(GOOD.gallery_ids < 5, GOOD.gallery_ids, 99),
            ),
            "lacks the identities of [0-9]+ of the 40 queries, and has the others only under the query's own camera",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(features: FeatureSet, sentence: str, setting: ReRanking | None) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        score(features, setting)
    assert "\n" not in str(error.value)


def exchanged(features: FeatureSet, junk: int = 0) -> FeatureSet:
    ids = features.gallery_ids.copy()
    ids[:junk] = -1
    sides = (features.gallery_features, ids, features.gallery_cameras)
    return FeatureSet(*sides, features.query_features, features.query_ids, features.query_cameras)


def copied(camera: int | None, count: int = 10) -> FeatureSet:
    """The first queries are in the gallery too, under another camera or under their own."""
    rows, ids, cameras = (getattr(GOOD, f"gallery_{name}").copy() for name in ("features", "ids", "cameras"))
    rows[:count], ids[:count] = GOOD.query_features[:count], GOOD.query_ids[:count]
    cameras[:count] = GOOD.query_cameras[:count] if camera is None else camera
    return changed(gallery_features=rows, gallery_ids=ids, gallery_cameras=cameras)


def constant(columns: int) -> FeatureSet:
    sides = (GOOD.query_features.copy(), GOOD.gallery_features.copy())
    for rows in sides:
        rows[:, :columns] = [0.0, 0.5] * (columns // 2)
    return changed(query_features=sides[0], gallery_features=sides[1])


def subset(features: FeatureSet, gallery: slice) -> FeatureSet:
    names = ("gallery_features", "gallery_ids", "gallery_cameras")
    return dataclasses.replace(features, **{name: getattr(features, name)[gallery] for name in names})


@pytest.mark.parametrize("setting", [None, ReRanking(4, 2, 0.3)])
@pytest.mark.parametrize(
    ("features", "sentences"),
    [
        (GOOD, []),
        (changed(gallery_features=few_rows(119)), []),
        (changed(gallery_features=few_rows(118)), ["^2 of 120 gallery rows are equal to another one"]),
        (changed(gallery_features=few_rows(31)), ["^89 of 120 gallery rows are equal to another one"]),
        (changed(gallery_features=few_rows(30)), ["collapsed: 30 of 120 gallery rows are distinct, and .* % of each"]),
        (changed(gallery_features=few_rows(2)), ["collapsed: 2 of 120 gallery rows are distinct.*say nothing about"]),
        (changed(gallery_features=few_rows(3), query_features=few_rows(3)[:40]), ["collapsed: 3 of 120 gallery"]),
        (
            changed(query_features=GOOD.query_features[np.zeros(40, int)]),
            ["collapsed: 1 of 40 queries is distinct, and 100 % of each row"],
        ),
        (
            changed(query_features=GOOD.query_features[np.arange(40) % 10]),
            ["collapsed: 10 of 40 queries are distinct, .* and copies"],
        ),
        (changed(query_features=GOOD.query_features[np.arange(40) % 11]), []),
        (
            changed(
                gallery_features=near_one_point(GOOD.gallery_features, 1e-4),
                query_features=near_one_point(GOOD.query_features, 1e-4),
            ),
            ["almost collapsed: the mean squared distance of two gallery rows of length 1 is [1-4].[0-9]e-08, so"],
        ),
        (constant(6), []),
        (constant(8), ["^8 of the 16 columns of the features have one value in all rows"]),
        (exchanged(GOOD), ["^queries and gallery may be exchanged: there are 120 queries and 40 gallery images"]),
        (exchanged(GOOD, 7), ["exchanged: there are 120 queries .7 of them junk or distractors. and 40"]),
        (exchanged(subset(GOOD, slice(60)), 2), ["exchanged: there are 60 queries .2 of them junk"]),
        (subset(GOOD, slice(30)), []),
        (copied(99), ["^10 of 40 queries have their own embedding in the gallery as a match"]),
        (copied(99, 1), ["^1 of 40 queries have their own embedding"]),
        (copied(None), []),
        (copied(None, 40), ["^all queries are gallery images too"]),
    ],
)
def test_what_is_doubtful_is_told(features: FeatureSet, sentences: list[str], setting: ReRanking | None) -> None:
    result = score(features, setting)
    assert len(result.warnings) == len(sentences), result.warnings
    for warning, sentence in zip(result.warnings, sentences, strict=True):
        assert "\n" not in warning and re.search(sentence, warning)
    assert result.report()["warnings"] == list(result.warnings) == examine_features(features)


@pytest.mark.parametrize("shift", [0.0, 3.0, 1e3, 1e5])
@pytest.mark.parametrize("copies", [0, 30])
def test_the_numbers_are_those_of_a_plain_count(shift: float, copies: int) -> None:
    rows = (GOOD.gallery_features + np.float32(shift)).astype(np.float32)
    rows[120 - copies :] = rows[:copies]
    ids = GOOD.gallery_ids.copy()
    ids[:5] = -1  # junk does not count
    features = changed(gallery_features=rows, gallery_ids=ids)
    statistics = score(features).embeddings
    rows = rows[5:].astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert statistics.as_dict() == {
        "distinct_queries": 40,
        "distinct_gallery": len(np.unique(rows, axis=0)),
        "common": pytest.approx(np.linalg.norm(unit.mean(axis=0)), abs=1e-6),
        "constant_columns": 0,
        "columns": 16,
    }
    assert (statistics.queries, statistics.gallery) == (40, 115)
    assert 0 <= statistics.common <= 1


def test_one_gallery_image_of_each_kind_is_enough() -> None:
    features = subset(GOOD, slice(2))
    ids, cameras = np.array([GOOD.query_ids[0], 77]), np.array([98, 99])
    assert score(dataclasses.replace(features, gallery_ids=ids, gallery_cameras=cameras)).warnings == (
        "queries and gallery may be exchanged: there are 40 queries and 2 gallery images",
    )
