"""A Gaussian process over configurations and epochs, so that scores at rungs teach about scores at full length."""

import math

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from reid_tune.search.kernel import JITTER, ParameterDensity, Points, RandomFeatures, covariance, noise_variance

__all__ = ["GaussianProcess"]

# Points on which the kernel's parameters are fitted. The fit costs the third power of their number.
_MAX_FIT_POINTS = 150
_PARAMETER_DRAWS, _DRAWS_OF_EACH = 8, 8
_FEATURES = 400  # of the random functions


class GaussianProcess:
    """Gaussian process with a product kernel, fitted to values at points.

    The kernel is a Matern 5/2 kernel over the numbers with one length scale for each, times an exponential overlap
    kernel for each category, times an exponential kernel over the logarithm of the epoch (as in Klein et al. 2020,
    "Model-based asynchronous hyperparameter and neural architecture search"). Its parameters maximize their posterior
    density, see `ParameterDensity`.

    Args:
        points: Points of the n observations.
        values: Observed values [n], larger is better.
        scale: Standard deviation of the values if their own is not to be trusted.
    """

    def __init__(self, points: Points, values: np.ndarray, scale: float | None = None) -> None:
        self._mean = float(values.mean())
        self._scale = scale or float(values.std()) or 1.0
        standardized = (values - self._mean) / self._scale
        # The best points and evenly spaced others: the model must be right where the values are good.
        rows = np.arange(len(points))
        if len(points) > _MAX_FIT_POINTS:
            order = np.argsort(-values, kind="stable")
            half = _MAX_FIT_POINTS // 2
            spaced = order[half:][np.linspace(0, len(order) - half - 1, half).astype(int)]
            rows = np.sort(np.concatenate([order[:half], spaced]))
        self._density = ParameterDensity(points.take(rows), standardized[rows])
        self.parameters = self._density.find_maximum()
        self._condition(points, standardized)

    def _condition(self, points: Points, standardized: np.ndarray) -> None:
        self._points, self._values = points, standardized
        self._factor = _factorize(points, self.parameters)
        self._weights = cho_solve((self._factor, True), standardized)

    def believe(self, points: Points) -> None:
        """Add points as if their predicted means had been observed, so that others are preferred near them."""
        means = (self.predict(points)[0] - self._mean) / self._scale
        self._condition(self._points.join(points), np.concatenate([self._values, means]))

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of an observation."""
        return self._scale * math.sqrt(noise_variance(self.parameters))

    def predict(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Return means and standard deviations [n] of the noiseless values at points."""
        cross = covariance(points, self._points, self.parameters)
        means = cross @ self._weights
        explained = solve_triangular(self._factor, cross.T, lower=True)
        variances = math.exp(self.parameters[-2]) - np.einsum("ij,ij->j", explained, explained)
        return self._mean + self._scale * means, self._scale * np.sqrt(np.maximum(variances, 1e-12))

    def draw(self, points: Points, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return noiseless values at points by functions that the observations allow.

        The kernel's parameters are drawn too, because the observations do not determine them. A function is one of the
        prior plus the process's prediction of what it lacks at the observations (Wilson et al. 2020, "Efficiently
        sampling functions from Gaussian process posteriors").

        Returns:
            Values of the expected function [n], and of drawn ones [64, n].
        """
        columns = zip(points.categories.T, self._points.categories.T, strict=True)
        options = [int(max(column.max(), observed.max())) + 2 for column, observed in columns]
        expected, drawn = np.zeros(len(points)), list[np.ndarray]()
        for parameters in self._density.draw(self.parameters, _PARAMETER_DRAWS, random):
            features = RandomFeatures(parameters, options, _FEATURES, random)
            prior = random.normal(size=(_FEATURES, _DRAWS_OF_EACH))
            noise = math.sqrt(noise_variance(parameters)) * random.normal(size=(len(self._points), _DRAWS_OF_EACH))
            lacking = self._values[:, None] - features(self._points) @ prior - noise
            factor = _factorize(self._points, parameters), True
            weights = cho_solve(factor, np.column_stack([self._values, lacking]))
            values = covariance(points, self._points, parameters) @ weights
            expected += values[:, 0] / _PARAMETER_DRAWS
            drawn += list((values[:, 1:] + features(points) @ prior).T)
        return self._mean + self._scale * expected, self._mean + self._scale * np.array(drawn)


def _factorize(points: Points, parameters: np.ndarray) -> np.ndarray:
    """Return the lower Cholesky factor of the kernel with noise."""
    kernel = covariance(points, points, parameters)
    kernel[np.diag_indices(len(points))] += noise_variance(parameters) + JITTER
    return np.asarray(cholesky(kernel, lower=True))
