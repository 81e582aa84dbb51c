from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.search.space_check import SAMPLE_COUNT, validate_space

from ..helpers.simulated_driver import make_sweep

NAME, RATE, SIZE = "train.optim.name", "train.optim.base_lr", "dataset.batch_size"
INSTANCES = "dataset.num_instances"
SIZES = {SIZE: {"quniform": [8, 64, 8]}, INSTANCES: {"int": [2, 16]}}
DIVIDES = f"{SIZE} % {INSTANCES} == 0"


def sampled(folder: Path, space: dict[str, Any], *constraints: str, **values: Any) -> list[Experiment]:
    return validate_space(make_sweep(folder, space=space, constraints=list(constraints), **values), 300).experiments


def test_constraints_keep_what_is_no_valid_spec_away(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the space allows {'dataset.batch_size'.*is not a multiple of"):
        sampled(tmp_path, SIZES)
    found = sampled(tmp_path, SIZES, DIVIDES, f"{SIZE} > {INSTANCES}")
    pairs = {(experiment.dataset.batch_size, experiment.dataset.num_instances) for experiment in found}
    assert len(pairs) > 10 and all(size % instances == 0 for size, instances in pairs)


def test_constraints_that_leave_nearly_nothing_are_refused_with_the_number(tmp_path: Path) -> None:
    never = f"{SIZE} < {INSTANCES} and {SIZE} == 64"
    with pytest.raises(InputError) as caught:
        sampled(tmp_path, SIZES, f"{SIZE} > 8", never)
    expected = f"constraints: only 0 of 300 random configurations satisfy all, 300 break {never}: loosen it or narrow"
    assert expected in str(caught.value) and str(tmp_path) in str(caught.value)
    # 3 of 300 are enough, fewer are not.
    rare = f"{SIZE} == 64 and {INSTANCES} == 7"
    with pytest.raises(InputError, match=r"only [0-2] of 300 random configurations"):
        sampled(tmp_path, SIZES, rare)


def test_a_constraint_that_a_sample_cannot_compute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sweep.yaml: constraints: .*dataset.padding = 0: .*by zero"):
        sampled(tmp_path, {"dataset.padding": {"int": [0, 5]}}, "10 % dataset.padding == 0")


BY_OPTIMIZER = {NAME: {"choice": ["SGD", "Adam"]}}


@pytest.mark.parametrize(
    ("space", "constraints", "message"),
    [
        (
            BY_OPTIMIZER | {"train.optim.momentum": {"uniform": [0.5, 0.9], "when": {NAME: "Adam"}}},
            [],
            r"space.train.optim.momentum, .*'Adam'.*, has no effect, because the optimizer is not SGD: remove it",
        ),
        (
            BY_OPTIMIZER
            | {
                "train.optim.momentum": [
                    {"uniform": [0.5, 0.9], "when": {NAME: "SGD"}},
                    {"value": 0.8, "when": {NAME: "Adam"}},
                ]
            },
            [],
            r"space.train.optim.momentum, \{'value': 0.8, .*'Adam'.*, has no effect",
        ),
        ({"train.optim.momentum": {"value": 0.8}}, [], "space.train.optim.momentum has no effect"),
        (
            BY_OPTIMIZER | {RATE: {"uniform": [0.1, 0.2], "when": {NAME: "SGD"}}},
            [f"{NAME} == 'Adam'"],
            f"space.{RATE}, .*'SGD'.*, is searched in none of 1 configurations",
        ),
    ],
)
def test_a_range_without_effect_is_refused(
    tmp_path: Path, space: dict[str, Any], constraints: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sampled(tmp_path, space, *constraints)


def test_a_range_with_an_effect_wherever_it_is_searched_is_kept(tmp_path: Path) -> None:
    momentum = {"train.optim.momentum": {"uniform": [0.5, 0.9], "when": {NAME: "SGD"}}}
    found = sampled(tmp_path, BY_OPTIMIZER | momentum)
    assert {experiment.train.optim.momentum for experiment in found if experiment.train.optim.name == "Adam"} == {0.9}
    assert len({experiment.train.optim.momentum for experiment in found}) > 100


def test_a_grid_is_checked_whole(tmp_path: Path) -> None:
    values: dict[str, Any] = {"search": {"sampler": "grid"}, "budget": {"trials": 1}}
    found = sampled(tmp_path, {INSTANCES: {"choice": [2, 8]}}, **values)
    assert [experiment.dataset.num_instances for experiment in found] == [2, 8]
    with pytest.raises(InputError, match="the space allows {'dataset.num_instances': 7}, which is not a valid spec"):
        sampled(tmp_path, {INSTANCES: {"choice": [2, 8, 7]}}, **values)


def test_the_usual_number_of_samples_is_that_of_the_documents() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/sweep.md").read_text()
    assert f"{SAMPLE_COUNT:,} sampled configurations" in text
