"""The choice among models against integrals, and what it does with repeats that differ much."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import t

from reid_tune.evaluation.choice import choose, expected_losses

FREE = [[], [], []]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (6, 4)])
def test_the_expected_loss_is_the_integral_over_the_true_difference(shape: tuple[int, int], seed: int) -> None:
    scores = np.random.default_rng(seed).normal(0.5, 0.02, shape)
    models, repeats = shape
    means = [row.mean() for row in scores]
    squares = sum(
        (scores[i, j] - means[i] - scores[:, j].mean() + scores.mean()) ** 2
        for i in range(models)
        for j in range(repeats)
    )
    freedom = (models - 1) * (repeats - 1)
    error = (2 * squares / freedom / repeats) ** 0.5
    expected = [
        quad(lambda x, gap: x * t.pdf((x - gap) / error, freedom) / error, 0, np.inf, args=(max(means) - mean,))[0]
        for mean in means
    ]
    expected[int(np.argmax(means))] = 0.0
    np.testing.assert_allclose(expected_losses(scores), expected, rtol=1e-5)


def test_the_best_mean_wins_and_of_equal_ones_the_earlier() -> None:
    assert choose(np.array([[0.5, 0.5], [0.6, 0.5], [0.6, 0.5]]), FREE, 0.005) == 1
    assert choose(np.array([[0.5], [0.4]]), FREE, 0.005) == 0


@pytest.mark.parametrize("costs", [[[], []], [[1.0], [2.0]]])
def test_a_model_that_collapsed_once_does_not_win_although_it_is_earlier_or_cheaper(costs: list[list[float]]) -> None:
    assert choose(np.array([[0.6, 0.6, 0.51], [0.6, 0.6, 0.6]]), costs, 0.005) == 1


def test_a_cheaper_model_wins_if_it_certainly_loses_less_than_the_margin() -> None:
    scores = np.array([[0.600, 0.610, 0.590, 0.605, 0.595], [0.598, 0.6085, 0.588, 0.603, 0.5935]])
    costs = [[2.0], [1.0]]
    assert choose(scores, costs, 0.005) == 1 and choose(scores, costs, 0.001) == 0
    assert choose(scores, [[1.0, 3.0], [1.0, 2.0]], 0.005) == 1
    noisy = scores + np.array([[0.03, -0.03, 0.02, -0.02, 0.0], [0.0] * 5])
    assert choose(noisy, costs, 0.005) == 0, "not proven different is not equal"


def test_one_repeat_says_nothing_of_equality_but_equal_scores_do() -> None:
    assert choose(np.array([[0.600], [0.5999]]), [[2.0], [1.0]], 0.005) == 0
    assert choose(np.array([[0.6], [0.6]]), [[2.0], [1.0]], 0.005) == 1
    assert choose(np.array([[0.6]]), [[2.0]], 0.005) == 0
