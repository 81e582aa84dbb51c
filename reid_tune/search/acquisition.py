"""Expected gains of candidates: of the best score, or of the Pareto front."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

__all__ = ["expected_front_growth", "expected_improvement"]


def expected_improvement(means: np.ndarray, deviations: np.ndarray, best: float | np.ndarray) -> np.ndarray:
    """Return the expectation [n] of max(0, score - best) for normally distributed scores.

    Args:
        means: Expected scores [n].
        deviations: Standard deviations [n], above 0.
        best: Score to improve on, one for all or [n].
    """
    surplus = (means - best) / deviations
    # Not by scipy.stats, whose import takes half a second.
    density = np.exp(-(surplus**2) / 2.0) / math.sqrt(2 * math.pi)
    return np.asarray(deviations * (surplus * ndtr(surplus) + density))


def expected_front_growth(
    means: np.ndarray, deviations: np.ndarray, costs: np.ndarray, front: Sequence[tuple[float, float]], worst: float
) -> np.ndarray:
    """Return the expected growth [n] of the area between a front of scores and costs, and the corner (worst, 1).

    A candidate with a cost c gains, at each cost x from c to 1, what its score exceeds the best score of the front at
    costs up to x, or the worst one where the front has none.

    Args:
        means: Expected scores [n].
        deviations: Standard deviations [n], above 0.
        costs: Costs of the candidates [n], scaled to 0 .. 1.
        front: Score and scaled cost of the trials to improve on; others than those of the front change nothing.
        worst: Score at and below which nothing is gained.
    """
    steps = sorted({0.0, 1.0, *(cost for _, cost in front if 0 < cost < 1)})
    growth = np.zeros(len(means))
    for low, high in zip(steps, steps[1:], strict=False):
        best = max([score for score, cost in front if cost <= low] + [worst])
        width = np.clip(high - np.maximum(low, costs), 0, None)
        growth += width * expected_improvement(means, deviations, best)
    return growth
