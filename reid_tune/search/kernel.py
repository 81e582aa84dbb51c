"""The kernel of the Gaussian process over configurations and epochs, and the fit of its parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

__all__ = ["JITTER", "ParameterDensity", "Points", "RandomFeatures", "covariance", "noise_variance"]

_FIT_ITERATIONS = 25
# Centers of the log-normal priors of the kernel's parameters, and their standard deviations.
_NUMBER, _CATEGORY, _EPOCH, _AMPLITUDE, _NOISE = 0.3, 1.0, 1.0, 1.0, 1e-2
_DEVIATIONS = {"number": 1.0, "category": 1.0, "epoch": 1.0, "amplitude": 0.5, "noise": 1.5}
_STEP = 0.05  # of the differences that give second derivatives, in standard deviations of the priors
JITTER = 1e-8


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


def covariance(first: Points, second: Points, parameters: np.ndarray) -> np.ndarray:
    """Return the kernel without noise between two sets of points; for the parameters see `ParameterDensity`."""
    scales = np.exp(-parameters)
    count = first.numbers.shape[1]
    exponent = np.abs(np.subtract.outer(first.epochs, second.epochs)) * scales[-3]
    for a, b, scale in zip(first.categories.T, second.categories.T, scales[count:], strict=False):
        exponent += np.not_equal.outer(a, b) * scale
    root = math.sqrt(5) * cdist(first.numbers * scales[:count], second.numbers * scales[:count])
    return np.asarray(math.exp(parameters[-2]) * np.exp(-exponent - root) * (1 + root + root**2 / 3))


def noise_variance(parameters: np.ndarray) -> float:
    """Return the variance of the noise of an observation."""
    return math.exp(parameters[-1])


class ParameterDensity:
    """Posterior density of the kernel's parameters: their marginal likelihood under log-normal priors.

    The parameters are logarithms: a length scale for each number, for each category and for the epoch, the amplitude
    and the variance of the noise. The length scales of n numbers are centered at 0.3 sqrt(n), those of n categories at
    sqrt(n).

    Args:
        points: Points of the n observations.
        values: Observed values [n], standardized.
    """

    def __init__(self, points: Points, values: np.ndarray) -> None:
        self._distances, self._values = _Distances(points), values
        self._centers, self._deviations = _priors(points)
        self._bounds = self._centers - 4 * self._deviations, self._centers + 4 * self._deviations

    def find_maximum(self) -> np.ndarray:
        """Return the parameters that maximize the density, sought from the centers of the priors."""
        bounds, options = list(zip(*self._bounds, strict=True)), {"maxiter": _FIT_ITERATIONS}
        return np.asarray(
            minimize(self._loss, self._centers, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        )

    def draw(self, maximum: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
        """Return parameters [count, p] from the normal distribution with the curvature of the density at its maximum.

        No direction is wider than the priors.
        """
        steps = _STEP * np.diag(self._deviations)
        slopes = [self._loss(maximum + step)[1] - self._loss(maximum - step)[1] for step in steps]
        curvature = np.array(slopes) * self._deviations / (2 * _STEP)  # where the priors have the variance 1
        eigenvalues, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
        scales = 1 / np.sqrt(np.maximum(eigenvalues, 1))
        offsets = random.normal(size=(count, len(maximum))) * scales @ vectors.T
        return np.clip(maximum + offsets * self._deviations, *self._bounds)

    def _loss(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative logarithm of the density, and its derivatives."""
        kernel, gradients = self._distances.kernel_and_gradients(parameters)
        values, identity = self._values, np.eye(len(self._values))
        factor = cholesky(kernel + (noise_variance(parameters) + JITTER) * identity, lower=True)
        inverse = cho_solve((factor, True), identity)
        weights = inverse @ values
        standard = (parameters - self._centers) / self._deviations
        value = 0.5 * values @ weights + np.log(np.diag(factor)).sum() + 0.5 * standard @ standard
        outer = inverse - np.outer(weights, weights)
        slopes = [0.5 * np.einsum("ij,ij->", outer, gradient) for gradient in gradients]
        slopes.append(0.5 * np.trace(outer) * noise_variance(parameters))
        return float(value), np.array(slopes) + standard / self._deviations


class RandomFeatures:
    """Features whose inner products have the kernel without noise as their mean.

    A feature is a cosine of a random projection (Rahimi and Recht 2007; for the Matern 5/2 kernel its frequencies have
    Student's t distribution with 5 degrees of freedom) times a random sign for each value of each category.

    Args:
        parameters: Parameters of the kernel.
        options: Number of values of each category, with the one for no value.
        count: Number of features.
        random: Generator.
    """

    def __init__(self, parameters: np.ndarray, options: Sequence[int], count: int, random: np.random.Generator) -> None:
        scales = np.exp(-parameters)
        numbers = len(parameters) - len(options) - 3
        students = np.sqrt(5 / random.chisquare(5, count))
        self._frequencies = random.normal(size=(numbers, count)) * scales[:numbers, None] * students
        self._epoch_frequencies = random.standard_cauchy(count) * scales[-3]
        self._phases = random.uniform(0, 2 * math.pi, count)
        self._amplitude = math.sqrt(2 * math.exp(parameters[-2]) / count)
        self._signs = [random.choice([-1.0, 1.0], size=(size, count)) for size in options]
        for signs, scale in zip(self._signs, scales[numbers:], strict=False):
            signs[:, random.random(count) < math.exp(-scale)] = 1.0  # the correlation of different values

    def __call__(self, points: Points) -> np.ndarray:
        """Return the features [n, count] of points."""
        angles = points.numbers @ self._frequencies + np.outer(points.epochs, self._epoch_frequencies) + self._phases
        features = self._amplitude * np.cos(angles)
        for signs, column in zip(self._signs, points.categories.T, strict=True):
            features *= signs[column]  # The last row is that of no value, -1.
        return np.asarray(features)


class _Distances:
    """Distances between the points of a set, from which kernels with any parameters are computed."""

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


def _priors(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return centers and standard deviations of the logarithms of the kernel's parameters."""
    numbers, categories = points.numbers.shape[1], points.categories.shape[1]
    # The more dimensions there are, the less one of them may separate two points.
    centers = [_NUMBER * math.sqrt(numbers)] * numbers + [_CATEGORY * math.sqrt(categories)] * categories
    centers += [_EPOCH, _AMPLITUDE, _NOISE]
    names = ["number"] * numbers + ["category"] * categories + ["epoch", "amplitude", "noise"]
    return np.log(centers), np.array([_DEVIATIONS[name] for name in names])
