import numpy as np
import pytest

from reid_tune.search.acquisition import expected_front_growth, expected_improvement

DRAWS = 20_000


def test_the_expected_improvement_is_the_mean_of_many_draws() -> None:
    means, deviations = np.array([0.0, 1.0, -2.0, 0.3]), np.array([1.0, 0.5, 2.0, 1e-6])
    draws = np.random.default_rng(1).normal(means, deviations, (DRAWS, 4))
    expected = np.maximum(0, draws - 0.2).mean(0)
    np.testing.assert_allclose(expected_improvement(means, deviations, 0.2), expected, atol=0.03)


def area(front: list[tuple[float, float]], worst: float, cells: int = 400) -> float:
    """Area that scores at costs dominate, summed over a grid of costs."""
    costs = (np.arange(cells) + 0.5) / cells
    return float(np.mean([max([score for score, at in front if at <= cost] + [worst]) - worst for cost in costs]))


@pytest.mark.parametrize(
    "front",
    [
        [(0.5, 0.5)],
        [(0.2, 0.0), (0.6, 0.4), (0.9, 1.0)],
        [(0.6, 0.2), (0.3, 0.6), (0.7, 0.8)],  # The second one is not of the front.
        [(0.4, 0.0), (0.4, 0.0)],
    ],
)
@pytest.mark.parametrize("cost", [0.0, 0.3, 0.7, 1.0])
def test_the_expected_growth_of_the_front_is_the_mean_of_many_draws(
    front: list[tuple[float, float]], cost: float
) -> None:
    worst, mean, deviation = 0.1, 0.55, 0.2
    before = area(front, worst)
    draws = np.random.default_rng(2).normal(mean, deviation, 400)
    expected = np.mean([area([*front, (draw, cost)], worst) - before for draw in draws])
    grown = expected_front_growth(np.array([mean]), np.array([deviation]), np.array([cost]), front, worst)
    np.testing.assert_allclose(grown, expected, atol=0.012)
