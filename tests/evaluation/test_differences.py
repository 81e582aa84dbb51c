"""The interval of a difference over repeats against loops, and what it says of repeats."""

from statistics import mean, variance

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import Difference, mean_difference, standard_error


def simulated(repeats=3, between=0.02, gain=0.05, seed=0, identities=40, held_out=0.5, persistent=0.1):
    """Repeats whose gains differ, on hold-outs that share people; 1 to 5 queries per person, alike within a person."""
    rng = np.random.default_rng(seed)
    people = rng.normal(0, persistent, identities)

    def repeat():
        held = np.flatnonzero(rng.random(identities) < held_out)
        ids = np.repeat(held, rng.integers(1, 6, len(held)))
        return gain + rng.normal(0, between) + people[ids] + rng.normal(0, 0.05, len(ids)), ids

    return [repeat() for _ in range(repeats)]


def looped_variance(repeats):
    """Two-way clustering query by query: pairs of queries of one repeat, or of one person in two repeats."""
    means = [mean(values) for values, _ in repeats]
    shared = 0.0
    for first, (values, ids) in enumerate(repeats):
        for second, (other_values, other_ids) in enumerate(repeats):
            for value, identity in zip(values, ids, strict=True):
                for other, other_identity in zip(other_values, other_ids, strict=True):
                    if first != second and identity == other_identity:
                        product = (value - means[first]) * (other - means[second])
                        shared += product / len(values) / len(other_values)
    return variance(means) / len(repeats) + max(0.0, shared) / len(repeats) ** 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("persistent", [0.0, 0.3])
def test_equals_a_loop_over_pairs_of_queries(persistent, seed):
    repeats = simulated(3, persistent=persistent, seed=seed, identities=20)
    assert standard_error(repeats) == pytest.approx(looped_variance(repeats) ** 0.5)


def test_without_common_identities_it_is_the_paired_t_test():
    repeats = [(values, ids + 1000 * number) for number, (values, ids) in enumerate(simulated(5))]
    interval = ttest_1samp([values.mean() for values, _ in repeats], 0).confidence_interval(0.95)
    difference = mean_difference(repeats)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_identities_that_agree_between_hold_outs_widen_the_interval():
    repeats = simulated(5, between=0.0, persistent=0.3, held_out=0.9)
    apart = [(values, ids + 1000 * number) for number, (values, ids) in enumerate(repeats)]
    assert standard_error(repeats) > 1.5 * standard_error(apart)


def test_one_repeat_has_no_interval_and_claims_nothing():
    difference = mean_difference(simulated(1, gain=0.5))
    assert (difference.low, difference.high, difference.repeats) == (None, None, 1)
    assert not difference.is_significant and difference.mean > 0.4


def test_every_repeat_counts_alike_however_many_queries_it_has():
    small, large = (np.full(2, 0.4), np.array([1, 2])), (np.full(200, 0.1), np.arange(200))
    assert mean_difference([small, large]).mean == pytest.approx(0.25)


def test_the_order_of_repeats_and_queries_and_the_numbers_of_identities_do_not_matter():
    repeats = simulated()
    shuffled = [(values[::-1], 7 * ids[::-1] + 5) for values, ids in reversed(repeats)]
    assert list(mean_difference(shuffled).as_dict().values()) == pytest.approx(
        list(mean_difference(repeats).as_dict().values())
    )


def test_a_gain_is_significant_and_none_is_not():
    gained, lost = mean_difference(simulated(5, gain=0.4)), mean_difference(simulated(5, gain=-0.4))
    assert gained.is_significant and not lost.is_significant
    assert lost.high < 0 < gained.low < gained.mean < gained.high
    assert Difference(**gained.as_dict()) == gained and gained.repeats == 5
    assert not mean_difference([(np.zeros(3), np.arange(3))] * 5).is_significant


@pytest.mark.parametrize("repeats", [3, 5])
@pytest.mark.parametrize("persistent", [0.0, 0.3])
def test_equal_models_are_rarely_called_different(repeats, persistent):
    settings = {"gain": 0.0, "persistent": persistent, "held_out": 0.2, "identities": 150}
    wrong = [mean_difference(simulated(repeats, seed=seed, **settings)).is_significant for seed in range(1000)]
    assert np.mean(wrong) < 0.035


@pytest.mark.parametrize("sizes", [[(0, 0)], [(2, 2), (3, 2)]])
def test_a_repeat_without_an_identity_per_query_is_refused(sizes):
    with pytest.raises(InputError, match="a repeat has {} values and {} identities".format(*sizes[-1])):
        mean_difference([(np.zeros(values), np.zeros(ids, int)) for values, ids in sizes])


def test_no_repeats_are_refused():
    with pytest.raises(InputError, match="at least one repeat"):
        mean_difference([])
