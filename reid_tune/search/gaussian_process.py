"""A Gaussian process over configurations and epochs, so that scores at rungs teach about scores at full length."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

__all__ = ["GaussianProcess", "Points"]

# Points on which the kernel's parameters are fitted. The fit costs the third power of their number.
_MAX_FIT_POINTS = 150
_FIT_ITERATIONS = 25
# Centers of the log-normal priors of the kernel's parameters, and their standard deviations.
_CATEGORY, _EPOCH, _AMPLITUDE, _NOISE = 1.0, 1.0, 1.0, 1e-2
_DEVIATIONS = {"number": 1.0, "category": 1.0, "epoch": 1.0, "amplitude": 0.5, "noise": 1.5}
_JITTER = 1e-8


@dataclass(frozen=True)
class Points:
    """Inputs of the process, one row for each of n points.

    Attributes:
        numbers: Positions in their ranges [n, numbers], about 0 to 1.
        categories: Indices of values [n, categories].
        epochs: Logarithm of the share of the full length [n], at most 0.
    """

    numbers: np.ndarray
    categories: np.ndarray
    epochs: np.ndarray

    def __len__(self) -> int:
        return len(self.epochs)

    def take(self, rows: np.ndarray) -> "Points":
        """Return some of the points."""
        return Points(self.numbers[rows], self.categories[rows], self.epochs[rows])

    def join(self, other: "Points") -> "Points":
        """Return these points and those of another set after them."""
        return Points(
            np.concatenate([self.numbers, other.numbers]),
            np.concatenate([self.categories, other.categories]),
            np.concatenate([self.epochs, other.epochs]),
        )


class GaussianProcess:
    """Gaussian process with a product kernel, fitted to values at points.

    The kernel is a Matern 5/2 kernel over the numbers with one length scale for each, times an exponential overlap
    kernel for each category, times an exponential kernel over the logarithm of the epoch (as in Klein et al. 2020,
    "Model-based asynchronous hyperparameter and neural architecture search"). Its parameters maximize the marginal
    likelihood under log-normal priors; the length scales of n numbers are centered at 0.3 sqrt(n).

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
        self.parameters = _fit(points.take(rows), standardized[rows])
        self._condition(points, standardized)

    def _condition(self, points: Points, standardized: np.ndarray) -> None:
        self._points, self._values = points, standardized
        kernel = _kernel(points, points, self.parameters)
        kernel[np.diag_indices(len(points))] += _noise(self.parameters) + _JITTER
        self._factor = cholesky(kernel, lower=True)
        self._weights = cho_solve((self._factor, True), standardized)

    def believe(self, points: Points) -> None:
        """Add points as if their predicted means had been observed, so that others are preferred near them."""
        means = (self.predict(points)[0] - self._mean) / self._scale
        self._condition(self._points.join(points), np.concatenate([self._values, means]))

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of an observation."""
        return self._scale * math.sqrt(_noise(self.parameters))

    def predict(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Return means and standard deviations [n] of the noiseless values at points."""
        cross = _kernel(points, self._points, self.parameters)
        means = cross @ self._weights
        explained = solve_triangular(self._factor, cross.T, lower=True)
        variances = math.exp(self.parameters[-2]) - np.einsum("ij,ij->j", explained, explained)
        return self._mean + self._scale * means, self._scale * np.sqrt(np.maximum(variances, 1e-12))


def _kernel(first: Points, second: Points, parameters: np.ndarray) -> np.ndarray:
    """Return the kernel without noise between two sets of points; for the parameters see `_Distances`."""
    scales = np.exp(-parameters)
    count = first.numbers.shape[1]
    exponent = np.abs(np.subtract.outer(first.epochs, second.epochs)) * scales[-3]
    for a, b, scale in zip(first.categories.T, second.categories.T, scales[count:], strict=False):
        exponent += np.not_equal.outer(a, b) * scale
    root = math.sqrt(5) * cdist(first.numbers * scales[:count], second.numbers * scales[:count])
    return np.asarray(math.exp(parameters[-2]) * np.exp(-exponent - root) * (1 + root + root**2 / 3))


class _Distances:
    """Distances between the points of a set, from which kernels with any parameters are computed.

    The parameters are logarithms: a length scale for each number, for each category and for the epoch, the amplitude
    and the variance of the noise.
    """

    def __init__(self, points: Points) -> None:
        self.squares = [np.subtract.outer(column, column) ** 2 for column in points.numbers.T]
        self.unequal = [np.not_equal.outer(column, column).astype(float) for column in points.categories.T]
        self.unequal.append(np.abs(np.subtract.outer(points.epochs, points.epochs)))
        self.shape = len(points), len(points)

    def kernel_and_gradients(self, parameters: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the kernel without noise, and its derivative by each parameter but the noise."""
        scales = np.exp(-parameters)
        count = len(self.squares)
        exponent, square = np.zeros(self.shape), np.zeros(self.shape)
        for distance, scale in zip(self.unequal, scales[count:], strict=False):
            exponent += distance * scale
        for distance, scale in zip(self.squares, scales, strict=False):
            square += distance * scale**2
        root = np.sqrt(5 * square)
        exponential = math.exp(parameters[-2]) * np.exp(-exponent - root)
        kernel = exponential * (1 + root + root**2 / 3)
        slope = exponential * (5 / 3) * (1 + root)
        gradients = [slope * square * scale**2 for square, scale in zip(self.squares, scales, strict=False)]
        gradients += [kernel * distance * scale for distance, scale in zip(self.unequal, scales[count:], strict=False)]
        return kernel, [*gradients, kernel]


def _noise(parameters: np.ndarray) -> float:
    return math.exp(parameters[-1])


def _priors(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return centers and standard deviations of the logarithms of the kernel's parameters."""
    numbers, categories = points.numbers.shape[1], points.categories.shape[1]
    centers = [0.3 * math.sqrt(max(1, numbers))] * numbers + [_CATEGORY] * categories + [_EPOCH, _AMPLITUDE, _NOISE]
    names = ["number"] * numbers + ["category"] * categories + ["epoch", "amplitude", "noise"]
    return np.log(centers), np.array([_DEVIATIONS[name] for name in names])


def _fit(points: Points, values: np.ndarray) -> np.ndarray:
    """Return the parameters that maximize the posterior density, sought from the centers of the priors."""
    centers, deviations = _priors(points)
    distances = _Distances(points)
    diagonal = np.diag_indices(len(points))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, gradients = distances.kernel_and_gradients(parameters)
        noisy = kernel.copy()
        noisy[diagonal] += _noise(parameters) + _JITTER
        factor = cholesky(noisy, lower=True)
        inverse = cho_solve((factor, True), np.eye(len(points)))
        weights = inverse @ values
        standard = (parameters - centers) / deviations
        value = 0.5 * values @ weights + np.log(np.diag(factor)).sum() + 0.5 * standard @ standard
        outer = inverse - np.outer(weights, weights)
        slopes = [0.5 * np.einsum("ij,ij->", outer, gradient) for gradient in gradients]
        slopes.append(0.5 * np.trace(outer) * _noise(parameters))
        return float(value), np.array(slopes) + standard / deviations

    bounds = list(zip(centers - 4 * deviations, centers + 4 * deviations, strict=True))
    return np.asarray(
        minimize(loss, centers, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _FIT_ITERATIONS}).x
    )
