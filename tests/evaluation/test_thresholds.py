"""Thresholds against full matrices and numpy's sort."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.errors import InputError
from reid_tune.evaluation.distances import UniqueRows, distance_blocks
from reid_tune.evaluation.features import FeatureSet
from reid_tune.evaluation.thresholds import BINS, PairDistances, without_unidentified

from ..helpers.evaluation_reference import distances, made_up

Kinds = tuple[np.ndarray, np.ndarray]


def kinds(matrix: np.ndarray, features: FeatureSet) -> Kinds:
    """Ordered distances of the pairs of one identity and of different ones, one pair at a time."""
    same, different = [], []
    for q, (identity, camera) in enumerate(zip(features.query_ids, features.query_cameras, strict=True)):
        for g, (other, place) in enumerate(zip(features.gallery_ids, features.gallery_cameras, strict=True)):
            if -1 in (identity, other):
                continue
            if identity != other:
                different.append(matrix[q, g])
            elif identity > 0 and camera != place:
                same.append(matrix[q, g])
    return np.sort(np.array(same)), np.sort(np.array(different))


def slow_threshold(same: np.ndarray, different: np.ndarray, fmr: float) -> tuple[float, float, float] | None:
    """The threshold and its two rates; None where no observed distance is within the rate."""
    possible = [t for t in np.unique(different) if (different <= t).mean() <= fmr]
    return (possible[-1], (different <= possible[-1]).mean(), (same > possible[-1]).mean()) if possible else None


def slow_eer(same: np.ndarray, different: np.ndarray) -> float:
    rates = (((different <= t).mean(), (same > t).mean()) for t in np.unique(np.concatenate([same, different])))
    return float(next((a + b) / 2 for a, b in rates if a >= b))


def float32_distances(features: FeatureSet) -> np.ndarray:
    rows, columns = UniqueRows.of_sides(features.query_features, features.gallery_features)
    matrix = torch.empty(len(rows), len(columns))
    distance_blocks(rows, columns)(lambda members, block: matrix.index_copy_(0, members, block))
    return matrix.numpy()


@cache
def features_and_kinds(*shape: int) -> tuple[FeatureSet, Kinds]:
    features = made_up(*shape, seed=shape[0])
    return features, kinds(float32_distances(features), features)


def check(pairs: PairDistances, same: np.ndarray, different: np.ndarray, fmr: float) -> None:
    wanted = slow_threshold(same, different, fmr)
    if wanted is None:
        with pytest.raises(InputError, match=f"{len(different)} pairs of different identities: their smallest rate"):
            pairs.threshold(fmr)
        return
    found = pairs.threshold(fmr)
    assert (found.squared_distance, found.fmr, found.fnmr) == wanted
    assert (found.same, found.different, found.requested) == (len(same), len(different), fmr)
    assert found.eer == slow_eer(same, different)
    assert found.cosine == 1 - wanted[0] / 2


@pytest.mark.parametrize("fmr", [1e-5, 0.001, 0.01, 0.1, 0.5, 0.999])
@pytest.mark.parametrize(
    "shape", [(23, 90, 12, 9), (1, 40, 3, 2), (300, 61, 8, 30), (40, 700, 5, 50)], ids=lambda shape: f"{shape[0]}"
)
def test_thresholds_equal_those_of_a_full_matrix(shape: tuple[int, int, int, int], fmr: float) -> None:
    features, (same, different) = features_and_kinds(*shape)
    check(PairDistances.of(features), same, different, fmr)


def test_rates_are_those_of_distances_in_double_precision() -> None:
    features = made_up(200, 300, identities=20, seed=2)
    same, different = kinds(distances(features.query_features, features.gallery_features), features)
    found = PairDistances.of(features).threshold(0.01)
    assert found.fmr == pytest.approx((different <= found.squared_distance).mean(), abs=1e-4) and found.fmr > 0.0099
    assert found.fnmr == pytest.approx((same > found.squared_distance).mean(), abs=1e-3) and 0 < found.fnmr < 1


def test_junk_counts_neither_way_and_distractors_are_other_people() -> None:
    features = made_up(60, 200, seed=3)
    gallery, queries = features.gallery_ids.copy(), features.query_ids.copy()
    gallery[::7], gallery[1::7], queries[::9], queries[1::9] = -1, 0, -1, 0
    features = dataclasses.replace(features, gallery_ids=gallery, query_ids=queries)
    same, different = kinds(float32_distances(features), features)
    check(PairDistances.of(features), same, different, 0.05)
    clean = without_unidentified(features)
    assert len(clean.query_ids) == (queries != -1).sum() and len(clean.gallery_ids) == (gallery != -1).sum()


def test_copies_of_images_tie() -> None:
    features = made_up(150, 333, dimension=7, seed=4)
    order = np.random.default_rng(0).integers(40, size=333)
    copied = features.gallery_features[order]
    features = dataclasses.replace(features, gallery_features=copied)
    same, different = kinds(float32_distances(features), features)
    assert len(np.unique(different)) < len(different) / 5
    for fmr in (0.001, 0.02, 0.3):
        check(PairDistances.of(features), same, different, fmr)


@pytest.mark.parametrize("fmr", [0.01, 0.999])
def test_features_that_are_all_equal_show_no_rate_below_one(fmr: float) -> None:
    features = made_up(20, 30)
    equal = (np.ones_like(rows) for rows in (features.query_features, features.gallery_features))
    features = dataclasses.replace(features, **dict(zip(("query_features", "gallery_features"), equal, strict=True)))
    with pytest.raises(InputError, match="their smallest rate is 1;"):
        PairDistances.of(features).threshold(fmr)


EDGES = [0.0, -0.0, 1e-45, 1e-38, 1e-7, 0.5, 0.75, 2.0, 4.0]
EDGES += [float(np.nextafter(np.float32(x), np.float32(to))) for x in (0.5, 0.75, 2) for to in (0, 4)]


@given(
    st.lists(st.sampled_from(EDGES) | st.floats(0, 4, width=32), min_size=48, max_size=48),
    st.sampled_from([1 / 24, 0.05, 1 / 12, 0.1, 0.25, 1 / 3, 0.5, 2 / 3, 0.9]),
    st.integers(1, 6),
)
def test_any_distances_give_the_threshold_of_a_sort(values: list[float], fmr: float, rows: int) -> None:
    features = made_up(6, 8, identities=2, cameras=2, seed=1)
    matrix = np.array(values, np.float32).reshape(6, 8)

    def blocks(receive):  # type: ignore[no-untyped-def]
        for some in torch.arange(6).split(rows):
            receive(some, torch.from_numpy(matrix)[some])

    same, different = kinds(matrix, features)
    assert len(same) and len(different)
    check(PairDistances(features, blocks), same, different, fmr)


@pytest.mark.parametrize("shift", [0, 1, 4, 30, 1e5])
def test_histograms_count_every_pair_once(shift: float) -> None:
    features = made_up(60, 90, seed=5)
    rows = {name: getattr(features, name) + np.float32(shift) for name in ("query_features", "gallery_features")}
    features = dataclasses.replace(features, **rows)
    same, different = kinds(float32_distances(features), features)
    counts, edges = PairDistances.of(features).histograms
    top = next(2.0**power for power in range(-40, 3) if 2.0**power > max(same[-1], different[-1]))
    assert counts.shape == (2, BINS) and edges.tolist() == np.linspace(0, top, BINS + 1).tolist()
    for found, values in zip(counts, (same, different), strict=True):
        assert found.tolist() == np.histogram(values, bins=edges)[0].tolist()


def test_several_threads_count_what_one_does() -> None:
    features = made_up(1500, 60, seed=6)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = [PairDistances.of(features).threshold(0.01) for _ in range(3)]
    finally:
        torch.set_num_threads(before)
    assert found == [PairDistances.of(features).threshold(0.01)] * 3


def test_distances_are_of_full_precision_whatever_the_training_chose() -> None:
    features, before = made_up(seed=8), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = PairDistances.of(features).threshold(0.1)
    finally:
        torch.set_float32_matmul_precision(before)
    assert found == PairDistances.of(features).threshold(0.1)


def test_the_numbers_for_a_file() -> None:
    found = PairDistances.of(made_up(seed=9)).threshold(0.1)
    content = found.as_dict()
    assert list(content) == ["fmr", "squared_distance", "cosine", "fnmr", "eer", "pairs", "protocol"]
    assert content["fmr"] == {"wanted": 0.1, "reached": found.fmr} and content["pairs"]["same"] == found.same
    assert f"{found.different} pairs of different identities" in content["protocol"]


def test_a_rate_below_that_of_one_pair_is_refused_with_the_smallest() -> None:
    features = made_up(10, 30, identities=10, seed=1)
    pairs = PairDistances.of(features)
    same, different = kinds(float32_distances(features), features)
    with pytest.raises(InputError) as caught:
        pairs.threshold(0.5 / len(different))
    assert f"with {len(different)} pairs" in str(caught.value) and f"{1 / len(different):.3g}" in str(caught.value)
    assert pairs.threshold(1 / len(different)).squared_distance == different[0]


@pytest.mark.parametrize("fmr", [0, 1, -0.1, 1.5, float("nan")])
def test_a_rate_that_is_none(fmr: float) -> None:
    with pytest.raises(InputError, match="give a number between 0 and 1"):
        PairDistances.of(made_up()).threshold(fmr)


def test_sets_without_pairs() -> None:
    features = made_up(cameras=1)
    with pytest.raises(InputError, match="no query has a match .*: all images have camera 1; number the cameras"):
        PairDistances.of(features).threshold()
    strangers = dataclasses.replace(features, gallery_ids=features.gallery_ids + 1000)
    with pytest.raises(InputError, match="no query has a match"):
        PairDistances.of(strangers).threshold()
    zeros = dataclasses.replace(
        made_up(),
        query_ids=np.zeros_like(made_up().query_ids),
        gallery_ids=np.where(np.arange(len(made_up().gallery_ids)) % 2, 0, made_up().gallery_ids),
    )
    with pytest.raises(InputError, match="only queries of identity 0 have a match"):
        PairDistances.of(zeros).threshold()
    with pytest.raises(InputError, match="all pairs are of one identity"):
        PairDistances.of(made_up(identities=1)).threshold()
    for side in ("query", "gallery"):
        junk = np.full_like(getattr(features, f"{side}_ids"), -1)
        with pytest.raises(InputError, match=f"every {side}.* is junk"):
            PairDistances.of(dataclasses.replace(features, **{f"{side}_ids": junk}))


@pytest.mark.gpu
def test_the_gpu_finds_the_same_rates() -> None:
    features = made_up(400, 900, identities=40, seed=7)
    cpu, gpu = (PairDistances.of(features, device) for device in ("cpu", "cuda"))
    one, other = cpu.threshold(0.01), gpu.threshold(0.01)
    assert other.squared_distance == pytest.approx(one.squared_distance, abs=1e-5)
    assert (other.fmr, other.same, other.different) == (one.fmr, one.same, one.different)
    assert abs(cpu.histograms[0] - gpu.histograms[0]).sum() < 20
