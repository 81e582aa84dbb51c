"""Choice among models by their scores in common repeats."""

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln, stdtr

__all__ = ["choose", "expected_losses"]


def choose(scores: np.ndarray, costs: Sequence[Sequence[float]], margin: float) -> int:
    """Return the index of the model to use: the one with the best mean, or a cheaper one that loses little.

    Where there are costs, it is the cheapest of the models whose expected loss is at most the margin. That two models
    have not been proven different does not make them equal, so repeats that differ much leave only the best mean.

    Args:
        scores: Score of each model in each repeat [models, repeats]; of equal models the earlier ones are preferred.
        costs: Costs of each model, the most important first; empty lists if only the scores count.
        margin: Largest acceptable expected loss, in the unit of the scores.
    """
    losses, means = expected_losses(scores), scores.mean(axis=1)
    best = int(means.argmax())
    if not len(costs[best]):
        return best
    acceptable = [index for index in range(len(scores)) if index == best or losses[index] <= margin]
    return min(acceptable, key=lambda index: (tuple(costs[index]), -means[index], index))


def expected_losses(scores: np.ndarray) -> np.ndarray:
    """Return the expected loss of each model [models] against the one with the best mean, whose own is 0.

    The loss is the positive part of the true difference. Given the repeats, this difference follows Student's t around
    the difference of the means, with the variance that is left after the means of models and of repeats (a flat prior;
    Gelman et al., Bayesian Data Analysis, 2013, chapter 3). With fewer than two degrees of freedom it is infinite.

    Args:
        scores: Score of each model in each repeat [models, repeats].
    """
    models, repeats = scores.shape
    means = scores.mean(axis=1)
    freedom = (models - 1) * (repeats - 1)
    losses = np.full(models, np.inf)
    if freedom > 1:
        residuals = scores - means[:, None] - scores.mean(axis=0) + scores.mean()
        error = float(np.sqrt(2 * np.sum(residuals**2) / freedom / repeats))
        losses = _positive_part(means.max() - means, error, freedom)
    losses[means == means.max()] = 0.0
    return losses


def _positive_part(difference: np.ndarray, error: float, freedom: int) -> np.ndarray:
    """Return the mean of the positive part of difference + error * t, for Student's t with `freedom` > 1."""
    if error <= 1e-12:
        return np.maximum(difference, 0.0)
    ratio = difference / error
    log_scale = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - np.log(freedom * np.pi) / 2
    density = np.exp(log_scale - (freedom + 1) / 2 * np.log1p(ratio**2 / freedom))
    return difference * stdtr(freedom, ratio) + error * (freedom + ratio**2) / (freedom - 1) * density
