"""Open-set identification against loops over draws and queries."""

import dataclasses

import numpy as np
import pytest

from reid_tune.errors import InputError
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.openset import open_set

from ..helpers.evaluation_reference import distances, made_up


def slow_rates(features: FeatureSet, enrolled: set[int], far: float) -> tuple[float, float, int, int] | None:
    """DIR, FAR and the numbers of genuine queries and impostors with one gallery."""
    matrix = distances(features.query_features, features.gallery_features)
    impostors, genuine = [], []
    for q, (identity, camera) in enumerate(zip(features.query_ids, features.query_cameras, strict=True)):
        seen = [
            (matrix[q, g], int(other))
            for g, (other, place) in enumerate(zip(features.gallery_ids, features.gallery_cameras, strict=True))
            if other in enrolled and not (other == identity and place == camera)
        ]
        if identity not in enrolled and identity != -1:
            impostors.append(min(seen)[0])
        elif any(other == identity for _, other in seen):
            genuine.append((*min(seen), identity))
    thresholds = [t for t in sorted(impostors) if np.mean(np.array(impostors) <= t) <= far]
    if not genuine or not thresholds:
        return None
    # Anything up to, but without, the next impostor is accepted.
    limit = min((t for t in impostors if t > thresholds[-1]), default=np.inf)
    hits = [nearest == identity and distance < limit for distance, nearest, identity in genuine]
    return float(np.mean(hits)), float(np.mean(np.array(impostors) < limit)), len(genuine), len(impostors)


@pytest.mark.parametrize("far", [0.01, 0.05, 0.3])
def test_rates_equal_a_loop_over_queries(far: float) -> None:
    features = made_up(250, 240, identities=30, noise=0.9, seed=1)
    ids = features.gallery_ids.copy()
    ids[::11], ids[1::11] = -1, 0
    queries = features.query_ids.copy()
    queries[::25], queries[1::25] = -1, 0
    features = dataclasses.replace(features, gallery_ids=ids, query_ids=queries)
    found = open_set(features, far, sizes=(3, 10, 16), draws=4, seed=5)
    assert [row["identities"] for row in found.rows] == [3, 10, 16] and found.reason is None
    identities = np.unique(ids[ids > 0])
    for row in found.rows:
        random = np.random.default_rng(5)
        draws = [random.choice(len(identities), row["identities"], replace=False) for _ in range(4)]
        wanted = [slow_rates(features, set(identities[draw].tolist()), far) for draw in draws]
        rates, alarms, genuine, impostors = np.array(wanted, float).T
        assert row["DIR"] == pytest.approx(rates.mean()) and row["DIR_range"] == pytest.approx(
            [rates.min(), rates.max()]
        )
        assert row["FAR"] == pytest.approx(alarms.mean()) and row["FAR"] <= far
        assert (row["genuine"], row["impostors"]) == (genuine.mean(), impostors.mean())
    assert 0 < found.rows[0]["DIR"] < 1 or far == 0.3


def test_more_enrolled_people_are_harder_and_more_alarms_find_more() -> None:
    features = made_up(600, 600, identities=80, noise=1.0, seed=2)
    few, many = open_set(features, 0.05, sizes=(5, 40)).rows
    assert many["DIR"] < few["DIR"] and many["squared_distance"] < few["squared_distance"]
    assert open_set(features, 0.5, sizes=(5,)).rows[0]["DIR"] > few["DIR"]


def test_galleries_are_drawn_by_the_seed() -> None:
    features = made_up(300, 300, identities=40, seed=3)
    first, again, other = (open_set(features, 0.05, sizes=(8,), seed=seed).rows for seed in (1, 1, 2))
    assert first == again != other


def test_ties_of_impostors_stay_below_the_rate() -> None:
    # All impostors are copies of one image: the rate is that of all of them, or of none.
    features = made_up(60, 40, identities=2, seed=4)
    queries = features.query_features.copy()
    ids = np.where(np.arange(60) < 50, 99, features.query_ids)
    queries[:50] = queries[0]
    (row,) = open_set(
        dataclasses.replace(features, query_features=queries, query_ids=ids), 0.5, sizes=(2,), draws=1
    ).rows
    assert row["FAR"] == 0 and row["impostors"] == 50


def test_a_tie_with_another_identity_finds_nobody() -> None:
    features = made_up(40, 20, identities=2, cameras=2, seed=6)
    gallery = np.tile(features.gallery_features[:1], (20, 1))
    ids = np.where(np.arange(40) < 20, 99, features.query_ids)
    features = dataclasses.replace(features, gallery_features=gallery, query_ids=ids)
    rows = open_set(features, 0.9, sizes=(1, 2), draws=3).rows
    assert rows[0]["DIR"] > 0 and rows[1]["DIR"] == 0


@pytest.mark.parametrize(
    "features, reason",
    [
        (made_up(90, 60, identities=20), "20 gallery identities and 90 queries leave no gallery of 10 or more"),
        (made_up(300, 60, identities=5), "5 gallery identities"),
    ],
)
def test_small_sets_have_no_row_but_a_reason(features: FeatureSet, reason: str) -> None:
    found = open_set(features)
    assert found.rows == [] and reason in str(found.reason) and "100 impostors" in str(found.reason)
    assert found.as_dict()["reason"] == found.reason


def test_a_gallery_of_distractors_has_no_row() -> None:
    features = made_up()
    found = open_set(dataclasses.replace(features, gallery_ids=np.zeros_like(features.gallery_ids)), 0.1)
    assert found.rows == [] and "0 gallery identities" in str(found.reason)


@pytest.mark.parametrize("far", [0, 1, float("nan")])
def test_a_rate_that_is_none(far: float) -> None:
    with pytest.raises(InputError, match="false alarm rate of"):
        open_set(made_up(), far)
