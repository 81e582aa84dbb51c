"""The bootstrap on two levels against a loop, and what it says of repeats."""

import numpy as np
import pytest

from reid_tune.errors import InputError
from reid_tune.evaluation.differences import Difference, mean_difference, nested_interval
from reid_tune.evaluation.intervals import interval


def made_up(repeats=3, between=0.02, gain=0.05, seed=0, identities=30):
    """Repeats whose gains differ; 1 to 5 queries per identity, alike within an identity."""
    rng = np.random.default_rng(seed)

    def repeat():
        ids = np.repeat(np.arange(identities), rng.integers(1, 6, identities))
        people = rng.normal(gain + rng.normal(0, between), 0.1, identities)
        return people[ids] + rng.normal(0, 0.02, len(ids)), rng.permutation(1000)[ids]

    return [repeat() for _ in range(repeats)]


def looped(repeats, draws, seed=7):
    rng, means = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = []
        for number in rng.choice(len(repeats), len(repeats)):
            values, ids = repeats[number]
            people = np.unique(ids)
            queries = [values[ids == person] for person in rng.choice(people, len(people))]
            drawn.append(np.concatenate(queries).mean())
        means.append(np.mean(drawn))
    return np.percentile(means, [2.5, 97.5])


@pytest.mark.parametrize("between", [0.0, 0.05])
def test_equals_a_loop_over_repeats_and_their_identities(between):
    repeats = [*made_up(2, between), *made_up(1, between, identities=8, seed=1)]
    expected = looped(repeats, 3000)
    np.testing.assert_allclose(nested_interval(repeats, draws=6000), expected, atol=np.ptp(expected) / 15)


def test_one_repeat_has_the_interval_of_its_queries():
    ((values, ids),) = made_up(1)
    assert nested_interval([(values, ids)], seed=3, draws=500) == interval(values, ids, seed=3, repeats=500)


def test_repeats_that_disagree_widen_the_interval():
    agreeing, disagreeing = made_up(between=0.0), made_up(between=0.0)
    disagreeing[0] = (disagreeing[0][0] + 0.2, disagreeing[0][1])
    assert np.diff(nested_interval(disagreeing)) > 2 * np.diff(nested_interval(agreeing))


def test_every_repeat_counts_alike_however_many_queries_it_has():
    few, many = (np.full(2, 0.4), np.array([1, 2])), (np.full(200, 0.1), np.arange(200))
    found = mean_difference([few, many])
    assert found.mean == pytest.approx(0.25)
    assert (found.low, found.high) == pytest.approx((0.1, 0.4))


def test_same_values_same_interval_and_another_seed_another():
    repeats = made_up()
    assert nested_interval(repeats) == nested_interval(repeats) != nested_interval(repeats, seed=1)


def test_a_gain_is_beyond_noise_and_none_is_not():
    gained, lost = mean_difference(made_up(gain=0.2)), mean_difference(made_up(gain=-0.2))
    assert gained.is_significant and not lost.is_significant and not mean_difference(made_up(gain=0.0)).is_significant
    assert lost.high < 0 < gained.low < gained.mean < gained.high
    assert Difference(**gained.as_dict()) == gained and gained.repeats == 3


def test_no_gain_is_rarely_beyond_noise_over_six_repeats():
    wrong = [mean_difference(made_up(6, gain=0.0, seed=seed), draws=300).is_significant for seed in range(200)]
    assert np.mean(wrong) < 0.06


@pytest.mark.parametrize("sizes", [[(0, 0)], [(2, 2), (3, 2)]])
def test_a_repeat_without_an_identity_per_query_is_refused(sizes):
    with pytest.raises(InputError, match="a repeat has {} values and {} identities".format(*sizes[-1])):
        mean_difference([(np.zeros(values), np.zeros(ids, int)) for values, ids in sizes])


def test_no_repeats_are_refused():
    with pytest.raises(InputError, match="at least one repeat"):
        nested_interval([])
