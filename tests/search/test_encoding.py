"""Configurations as positions in a unit cube, and as inputs of the Gaussian process."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_tune.search.encoding import SpaceEncoding

from ..helpers.simulated_driver import make_sweep
from ..helpers.simulated_search import CONDITIONAL, MARGIN, NAME, RATE

WIDTH, STEPS = "model.feat_dim", "train.optim.lr_steps"


def encoding(folder: Path, space: dict[str, Any] = CONDITIONAL["space"]) -> SpaceEncoding:
    return SpaceEncoding(make_sweep(folder, space=space).space)


def test_positions_and_configurations_are_inverse(tmp_path: Path) -> None:
    found, random = encoding(tmp_path), np.random.default_rng(1)
    for _ in range(100):
        configuration = found.configuration(random.random(found.dimensions))
        assert found.space.encode(configuration) is not None, "it is inside of the ranges"
        again = found.configuration(found.position(configuration, random.random(found.dimensions)))
        again, expected = (found.space.encode(values)[0] for values in (again, configuration))
        assert again == pytest.approx(expected)


@pytest.mark.parametrize(
    ("entry", "low", "high", "middle"),
    [
        ({"uniform": [0.1, 0.6]}, 0.1, 0.6, 0.35),
        ({"loguniform": [1e-4, 1e-2]}, 1e-4, 1e-2, 1e-3),
        ({"quniform": [0.1, 0.5, 0.1]}, 0.1, 0.5, 0.3),
    ],
)
def test_the_ends_of_a_range_and_its_middle(
    tmp_path: Path, entry: dict[str, Any], low: float, high: float, middle: float
) -> None:
    found = encoding(tmp_path, {RATE: entry})
    values = [found.configuration(np.array([at]))[RATE] for at in (0.0, 0.5, 1.0)]
    assert values == pytest.approx([low, middle, high])
    assert all(type(value) is float for value in values), "numpy's numbers divide by zero without an error"
    shares = found.points([{RATE: value} for value in (low, middle, high)], [0.0] * 3).numbers[:, 0]
    assert shares == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(("entry", "values"), [({"int": [2, 5]}, [2, 3, 4, 5]), ({"choice": [64, 256]}, [64, 256])])
def test_whole_numbers_and_choices_have_equal_shares(tmp_path: Path, entry: dict[str, Any], values: list[int]) -> None:
    found = encoding(tmp_path, {WIDTH: entry})
    counts = Counter(found.configuration(np.array([at]))[WIDTH] for at in (np.arange(400) + 0.5) / 400)
    assert counts == dict.fromkeys(values, 400 // len(values))


def test_the_ranges_of_a_key_share_a_column(tmp_path: Path) -> None:
    found = encoding(tmp_path)
    configurations = [
        {NAME: "SGD", RATE: 1e-2, "model.no_margin": True, STEPS: [2, 5]},
        {NAME: "Adam", RATE: 1e-3, "model.no_margin": False, MARGIN: 0.6, STEPS: [3, 4]},
    ]
    points = found.points(configurations, [0.0, math.log(0.5)])
    assert points.numbers.shape == (2, 4) and points.categories.shape == (2, 2)
    assert sorted(points.numbers[0]) == pytest.approx([0, 0.5, 0.5, 1]), "the middle where there is no margin"
    assert points.numbers[0, 0] == pytest.approx(points.numbers[1, 0]), "both rates are in the middle of their ranges"
    assert (points.categories[0] != points.categories[1]).all()
    assert points.epochs.tolist() == [0.0, math.log(0.5)]


def test_the_specs_values_may_lie_outside_of_the_ranges(tmp_path: Path) -> None:
    space = {RATE: {"loguniform": [1e-3, 1e-2]}, NAME: {"choice": ["SGD", "AdamW"]}}
    found = encoding(tmp_path, space)
    points = found.points([{}, {RATE: 1e-3, NAME: "SGD"}], [0.0, 0.0])
    assert points.numbers[0, 0] == pytest.approx(math.log10(0.00035 / 1e-3))
    assert points.categories[0, 0] != points.categories[1, 0]
