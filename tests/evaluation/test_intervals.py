"""Intervals against a loop, and their coverage."""

import numpy as np
import pytest

from reid_tune.errors import InputError
from reid_tune.evaluation.intervals import interval, paired_interval


def made_up(identities=40, seed=0):
    """Values of 1 to 6 queries per identity, alike within an identity."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(identities), rng.integers(1, 7, identities))
    return rng.normal(0.5, 0.2, identities)[ids] + rng.normal(0, 0.05, len(ids)), rng.permutation(1000)[ids]


def test_equals_a_loop_over_resampled_identities():
    values, ids = made_up()
    rng, people, means = np.random.default_rng(1), np.unique(ids), []
    for _ in range(3000):
        drawn = [values[ids == person] for person in rng.choice(people, len(people))]
        means.append(np.concatenate(drawn).mean())
    width = np.ptp(np.percentile(means, [2.5, 97.5]))
    np.testing.assert_allclose(interval(values, ids, repeats=3000), np.percentile(means, [2.5, 97.5]), atol=width / 15)


def test_covers_the_mean_and_is_repeatable():
    values, ids = made_up()
    low, high = interval(values, ids)
    assert low < values.mean() < high
    assert (low, high) == interval(values, ids) != interval(values, ids, seed=1)


def test_whole_identities_are_drawn():
    values, ids = made_up()
    by_identity, by_query = np.diff(interval(values, ids)), np.diff(interval(values, np.arange(len(ids))))
    assert by_identity > 1.3 * by_query


def test_covers_the_truth_about_as_often_as_it_says():
    inside = [low <= 0.5 <= high for low, high in (interval(*made_up(seed=seed), repeats=300) for seed in range(200))]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_paired_interval_is_narrow_for_a_small_steady_gain():
    values, ids = made_up()
    gain = values + 0.01 + np.random.default_rng(2).normal(0, 0.005, len(values))
    low, high = paired_interval(gain, values, ids)
    assert 0 < low < 0.01 < high < 0.02
    assert interval(gain, ids)[0] < values.mean()


def test_one_identity():
    assert interval(np.array([0.2, 0.4]), np.array([3, 3])) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize(("values", "ids"), [(0, 0), (3, 2)])
def test_unlike_numbers(values, ids):
    with pytest.raises(InputError, match=f"there are {values} values and {ids} identities"):
        interval(np.zeros(values), np.zeros(ids, int))


def test_unlike_pairs():
    with pytest.raises(InputError, match="there are 3 and 2; give the same queries"):
        paired_interval(np.zeros(3), np.zeros(2), np.zeros(3, int))
