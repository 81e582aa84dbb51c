import math

import numpy as np
import pytest

from reid_tune.search.gaussian_process import GaussianProcess
from reid_tune.search.kernel import ParameterDensity, Points, RandomFeatures, _priors

RANDOM = np.random.default_rng(3)


def points(count: int, numbers: int = 2, categories: int = 1, epochs: int = 3) -> Points:
    return Points(
        RANDOM.random((count, numbers)),
        RANDOM.integers(0, 3, (count, categories)),
        np.log(RANDOM.integers(1, epochs + 1, count) / epochs),
    )


def kernel(first: Points, second: Points, parameters: np.ndarray) -> np.ndarray:
    """The documented kernel, pair by pair."""
    scales = np.exp(parameters)
    numbers, categories = first.numbers.shape[1], first.categories.shape[1]
    result = np.empty((len(first), len(second)))
    for i in range(len(first)):
        for j in range(len(second)):
            distance = math.sqrt(
                sum(((first.numbers[i, k] - second.numbers[j, k]) / scales[k]) ** 2 for k in range(numbers))
            )
            root = math.sqrt(5) * distance
            value = (1 + root + root**2 / 3) * math.exp(-root)
            for k in range(categories):
                if first.categories[i, k] != second.categories[j, k]:
                    value *= math.exp(-1 / scales[numbers + k])
            value *= math.exp(-abs(first.epochs[i] - second.epochs[j]) / scales[numbers + categories])
            result[i, j] = scales[-2] * value
    return result


def posterior(process: GaussianProcess, seen: Points, values: np.ndarray, new: Points) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations by the textbook's formulas (Rasmussen and Williams 2006, equations 2.25, 2.26)."""
    standardized = (values - values.mean()) / values.std()
    parameters = process.parameters
    inverse = np.linalg.inv(kernel(seen, seen, parameters) + (math.exp(parameters[-1]) + 1e-8) * np.eye(len(seen)))
    cross = kernel(new, seen, parameters)
    variances = np.diag(kernel(new, new, parameters) - cross @ inverse @ cross.T)
    return values.mean() + values.std() * cross @ inverse @ standardized, values.std() * np.sqrt(variances)


@pytest.mark.parametrize(("numbers", "categories"), [(2, 1), (1, 0), (0, 2), (3, 3)])
def test_predictions_are_those_of_the_textbook(numbers: int, categories: int) -> None:
    seen, new = points(20, numbers, categories), points(7, numbers, categories)
    values = RANDOM.random(20)
    process = GaussianProcess(seen, values)
    for predicted, expected in zip(process.predict(new), posterior(process, seen, values, new), strict=True):
        np.testing.assert_allclose(predicted, expected, rtol=1e-6)


def test_a_believed_point_has_the_mean_that_it_had_and_is_certain() -> None:
    seen, new = points(20), points(2)
    process = GaussianProcess(seen, RANDOM.random(20))
    means, deviations = process.predict(new)
    process.believe(new)
    again, smaller = process.predict(new)
    np.testing.assert_allclose(again, means, atol=1e-6)
    assert (smaller < deviations).all()


def log_posterior(parameters: np.ndarray, seen: Points, values: np.ndarray) -> float:
    centers, deviations = _priors(seen)
    noisy = kernel(seen, seen, parameters) + math.exp(parameters[-1]) * np.eye(len(seen))
    likelihood = -0.5 * values @ np.linalg.solve(noisy, values) - 0.5 * np.linalg.slogdet(noisy)[1]
    return float(likelihood - 0.5 * np.sum(((parameters - centers) / deviations) ** 2))


def test_the_parameters_are_a_maximum_of_the_posterior_density() -> None:
    seen = points(30)
    values = np.sin(5 * seen.numbers[:, 0]) + 0.3 * (seen.categories[:, 0] == 1) + 0.5 * seen.epochs
    values = (values - values.mean()) / values.std()
    fitted = ParameterDensity(seen, values).find_maximum()
    best = log_posterior(fitted, seen, values)
    assert best > log_posterior(_priors(seen)[0], seen, values) + 5
    for index in range(len(fitted)):
        for step in (-0.3, 0.3):
            moved = fitted.copy()
            moved[index] += step
            assert log_posterior(moved, seen, values) < best + 1e-3


def test_more_keys_have_longer_scales_before_anything_is_known() -> None:
    one, several = np.exp(_priors(points(2, 1, 1))[0]), np.exp(_priors(points(2, 4, 9))[0])
    np.testing.assert_allclose(several[:13], [2 * one[0]] * 4 + [3 * one[1]] * 9)
    np.testing.assert_allclose(several[13:], one[2:])


def test_a_key_without_influence_gets_a_longer_scale_than_one_that_decides() -> None:
    seen = points(60)
    process = GaussianProcess(seen, np.sin(6 * seen.numbers[:, 0]))
    assert process.parameters[0] < process.parameters[1] - 0.7


def test_many_points_are_fitted_on_some_of_them_and_all_count() -> None:
    seen = points(260)
    values = np.sin(6 * seen.numbers[:, 0])
    means, _ = GaussianProcess(seen, values).predict(seen)
    assert np.abs(means - values).max() < 0.2


@pytest.mark.parametrize("values", [[0.5] * 6, [0.1, 0.1, 0.9, 0.1, 0.1, 0.1]])
def test_equal_points_and_equal_values_are_no_error(values: list[float]) -> None:
    seen = Points(np.full((6, 2), 0.5), np.zeros((6, 1), int), np.zeros(6))
    means, deviations = GaussianProcess(seen, np.array(values)).predict(seen)
    np.testing.assert_allclose(means, np.mean(values), atol=0.05)
    assert np.isfinite(deviations).all()


def test_inner_products_of_random_features_are_the_kernel() -> None:
    seen = points(12, numbers=2, categories=2)
    parameters = np.log([0.4, 0.9, 0.7, 2.0, 1.5, 1.3, 0.01])
    features = RandomFeatures(parameters, [4, 4], 40_000, np.random.default_rng(1))(seen)
    np.testing.assert_allclose(features @ features.T, kernel(seen, seen, parameters), atol=0.05)


def test_a_missing_value_is_a_value_of_its_category() -> None:
    seen = Points(np.zeros((3, 0)), np.array([[-1], [0], [-1]]), np.zeros(3))
    parameters = np.log([0.5, 1.0, 1.0, 0.01])
    features = RandomFeatures(parameters, [2], 20_000, np.random.default_rng(1))(seen)
    np.testing.assert_allclose(features @ features.T, kernel(seen, seen, parameters), atol=0.05)


def test_drawn_functions_have_the_means_and_deviations_of_the_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the parameters of the maximum: the textbook's formulas have only these."""
    monkeypatch.setattr(ParameterDensity, "draw", lambda _, maximum, count, random: np.tile(maximum, (count, 1)))
    seen, new = points(20), points(9)
    process = GaussianProcess(seen, np.sin(6 * seen.numbers[:, 0]) + 0.1 * RANDOM.normal(size=20))
    means, deviations = process.predict(new)
    draws = [process.draw(new, np.random.default_rng(seed)) for seed in range(20)]
    np.testing.assert_allclose(draws[0][0], means, atol=1e-9)
    drawn = np.concatenate([functions for _, functions in draws])
    assert len(draws[0][1]) == 64
    np.testing.assert_allclose(drawn.mean(axis=0), means, atol=0.15 * deviations.max())
    np.testing.assert_allclose(drawn.std(axis=0), deviations, rtol=0.12)


def test_drawn_parameters_have_the_curvature_of_the_density_but_are_not_wider_than_the_priors() -> None:
    seen = points(30)
    values = (
        np.sin(5 * seen.numbers[:, 0]) + np.cos(4 * seen.numbers[:, 1]) + 0.5 * seen.epochs + RANDOM.normal(size=30) / 5
    )
    values = (values - values.mean()) / values.std()
    density = ParameterDensity(seen, values)
    maximum, deviations = density.find_maximum(), _priors(seen)[1]
    steps = np.diag(0.05 * deviations)
    hessian = np.array(
        [
            [
                sum(
                    sign * other * log_posterior(maximum + sign * one + other * two, seen, values)
                    for sign in (-1, 1)
                    for other in (-1, 1)
                )
                / -(0.1**2)
                for two in steps
            ]
            for one in steps
        ]
    )
    eigenvalues, vectors = np.linalg.eigh(hessian)
    expected = vectors @ np.diag(1 / np.maximum(eigenvalues, 1)) @ vectors.T
    drawn = (density.draw(maximum, 50_000, np.random.default_rng(1)) - maximum) / deviations
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.05)
    assert eigenvalues.max() > 2
