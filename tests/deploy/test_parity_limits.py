import numpy as np
import pytest

from reid_tune.deploy.parity import fp16_limits, measure_deviation, same_neighbours
from reid_tune.errors import RunFailedError


def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(12, 8))


def test_twice_the_deviation_of_rounding_is_the_limit() -> None:
    wanted = rows()
    noise = np.random.default_rng(1).normal(size=wanted.shape, scale=1e-3)
    limits = fp16_limits(wanted, wanted + noise)
    double = measure_deviation(wanted, wanted + 2 * noise)
    assert limits.difference == pytest.approx(double.difference)
    assert 1 - limits.cosine == pytest.approx(1 - double.cosine, rel=0.02)
    assert limits.tie == pytest.approx(2 * double.cosine_shift, rel=0.02)
    # Whatever is within the limit has the same neighbours.
    assert same_neighbours(wanted, wanted + 2 * noise, 1.02 * limits.tie) == 1


def test_a_network_that_rounding_changes_is_refused_in_one_sentence() -> None:
    wanted = rows()
    with pytest.raises(
        RunFailedError, match=r"^export.precision = fp16 does not fit .* cosine of 0.9[0-9]*; [^\n]*fp32.$"
    ):
        fp16_limits(wanted, wanted + np.random.default_rng(1).normal(size=wanted.shape, scale=0.1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_leaves_the_range_is_refused_in_one_sentence(value: float) -> None:
    rounded = rows()
    rounded[3, 2] = value
    with pytest.raises(RunFailedError, match=r"^export.precision = fp16 does not fit .* exceed 65,504; [^\n]*fp32\.$"):
        fp16_limits(rows(), rounded)
