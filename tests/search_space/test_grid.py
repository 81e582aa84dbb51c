import itertools
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.search_space.space import grid_configurations

from ..helpers.search_spaces import make_space

NAME, SOFT, MARGIN, SIZE = (
    "train.optim.name",
    "model.no_margin",
    "train.optim.triplet_loss_margin",
    "dataset.batch_size",
)


def test_a_grid_is_every_combination_in_the_files_order() -> None:
    tree = {NAME: {"choice": ["SGD", "AdamW"]}, SIZE: {"quniform": [16, 64, 16]}, MARGIN: {"value": 0.2}}
    expected = itertools.product(["SGD", "AdamW"], [16, 32, 48, 64], [0.2])
    assert grid_configurations(make_space(tree)) == [dict(zip(tree, values, strict=True)) for values in expected]


def test_a_key_that_is_not_searched_multiplies_nothing() -> None:
    tree = {SOFT: {"choice": [True, False]}, MARGIN: {"quniform": [0.1, 0.2, 0.1], "when": {SOFT: False}}}
    assert grid_configurations(make_space(tree)) == [
        {SOFT: True},
        {SOFT: False, MARGIN: 0.1},
        {SOFT: False, MARGIN: 0.2},
    ]


def test_constraints_and_the_spec_itself_leave_the_grid() -> None:
    tree = {NAME: {"choice": ["SGD", "Adam"]}, SIZE: {"int": [62, 66]}}
    found = grid_configurations(make_space(tree, f"{SIZE} % 2 == 0"))
    assert [(made[NAME], made[SIZE]) for made in found] == [
        ("SGD", 62),
        ("SGD", 64),
        ("SGD", 66),
        ("Adam", 62),
        ("Adam", 66),  # Adam with 64 is the spec, which is trial 0.
    ]


@pytest.mark.parametrize(
    ("tree", "constraints", "message"),
    [
        ({MARGIN: {"uniform": [0, 1]}}, (), f"space.{MARGIN} = .*'uniform'.* a grid has no continuous ranges"),
        (
            {SOFT: {"choice": [True, False]}, MARGIN: {"loguniform": [1, 2], "when": {SOFT: True}}},
            (),
            f"space.{MARGIN} = .*'loguniform'.*continuous",
        ),
        ({"train.optim.lr_steps": {"list": [{"uniform": [1, 2]}]}}, (), "space.*continuous"),
        ({SIZE: {"int": [1, 10**9]}}, (), "the grid has more than 10,000 combinations: narrow it"),
        ({SIZE: {"int": [1, 10]}}, (f"{SIZE} > 10",), "no combination of the grid .* satisfies the constraints"),
        ({SIZE: {"int": [0, 1]}}, (f"1 / {SIZE} > 0",), f"constraints: .*{SIZE} = 0"),
    ],
)
def test_bad_grids(tree: dict[str, Any], constraints: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^some.yaml: {message}"):
        grid_configurations(make_space(tree, *constraints))
