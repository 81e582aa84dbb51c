import json
from typing import Any

import pytest
import yaml

from reid_tune.errors import InputError
from reid_tune.sweep.space import Choice, Parameter, Range, parse_space

RATE = "train.optim.base_lr"


def parse_one(key: str, entry: Any) -> Parameter:
    return parse_space({key: entry}, "file").parameters[0]


@pytest.mark.parametrize(
    ("entry", "kind", "low", "high"),
    [
        ({"uniform": [0.1, 0.6]}, "uniform", 0.1, 0.6),
        ({"loguniform": [1e-4, 1]}, "loguniform", 1e-4, 1),
        ({"int": [1, 20]}, "int", 1, 20),
        ({"uniform": ["1e-4", "1e-3"]}, "uniform", 1e-4, 1e-3),
    ],
)
def test_ranges(entry: Any, kind: Any, low: float, high: float) -> None:
    parameter = parse_one(RATE, entry)
    assert parameter == Range(RATE, kind, low, high)
    assert parameter.encode(low) == low and parameter.encode(high) == high
    assert parameter.decode(low) == low
    for outside in (low - 1e-9, high + 1e-9, None, "Adam", [low]):
        assert parameter.encode(outside) is None


def test_ranges_in_optunas_terms() -> None:
    from optuna.distributions import FloatDistribution, IntDistribution

    assert parse_one(RATE, {"uniform": [0.1, 1]}).distribution() == FloatDistribution(0.1, 1)
    assert parse_one(RATE, {"loguniform": [0.1, 1]}).distribution() == FloatDistribution(0.1, 1, log=True)
    assert parse_one(RATE, {"int": [1, 4]}).distribution() == IntDistribution(1, 4)


def test_a_number_that_yaml_reads_as_text_is_a_number() -> None:
    tree = yaml.safe_load(f"{RATE}: {{loguniform: [1e-4, 1e-2]}}")
    assert tree[RATE]["loguniform"] == ["1e-4", "1e-2"]
    assert parse_space(tree, "file").parameters == (Range(RATE, "loguniform", 1e-4, 1e-2),)


def test_a_whole_range_holds_whole_numbers_only() -> None:
    parameter = parse_one(RATE, {"int": [1, 4]})
    assert parameter.encode(2) == 2
    assert parameter.encode(2.5) is None


@pytest.mark.parametrize(
    ("key", "values", "outside"),
    [
        ("train.optim.name", ["Adam", "AdamW"], "SGD"),
        ("model.no_margin", [True, False], None),
        ("model.reduce_feat_dim", [None, True], False),
        ("train.optim.lr_steps", [[40, 70], [60]], [40]),
        (RATE, [1e-4, 1e-3], 2e-4),
    ],
)
def test_choices(key: str, values: list[Any], outside: Any) -> None:
    from optuna.distributions import CategoricalDistribution

    parameter = parse_one(key, {"choice": values})
    assert parameter == Choice(key, tuple(values))
    distribution = parameter.distribution()
    assert isinstance(distribution, CategoricalDistribution)
    assert [parameter.decode(name) for name in distribution.choices] == values
    assert [parameter.encode(value) for value in values] == list(distribution.choices)
    assert parameter.encode(outside) is None


def test_a_choice_of_lists_knows_the_tuple_of_the_spec() -> None:
    parameter = parse_one("train.optim.lr_steps", {"choice": [[40, 70], [60]]})
    assert parameter.encode((40, 70)) == json.dumps([40, 70])


def test_a_choice_of_whole_numbers_knows_the_float_of_the_spec() -> None:
    parameter = parse_one("train.optim.bias_lr_factor", {"choice": [1, 2]})
    encoded = parameter.encode(1.0)
    assert parameter.distribution()._contains(parameter.distribution().to_internal_repr(encoded))
    assert parameter.decode(encoded) == 1


def test_a_space_keeps_the_order_and_knows_what_lies_outside() -> None:
    space = parse_space({RATE: {"uniform": [0.1, 0.5]}, "train.optim.name": {"choice": ["Adam", "SGD"]}}, "file")
    assert list(space.distributions()) == [RATE, "train.optim.name"]
    assert space.decode({"train.optim.name": '"SGD"', RATE: 0.25}) == {RATE: 0.25, "train.optim.name": "SGD"}
    assert space.encode({RATE: 0.25, "train.optim.name": "SGD"}) == {RATE: 0.25, "train.optim.name": '"SGD"'}
    assert space.encode({RATE: 0.75, "train.optim.name": "SGD"}) is None


def test_an_alias_is_its_key() -> None:
    assert parse_one("train.grad_clip", {"uniform": [0, 1]}).key == "train.clip_grad_norm"


@pytest.mark.parametrize(
    ("key", "entry", "parts"),
    [
        ("train.optim.base_rl", {"uniform": [0, 1]}, ["no such key", "did you mean train.optim.base_lr?"]),
        ("base_lr", {"uniform": [0, 1]}, ["did you mean train.optim.base_lr?"]),
        ("zzzzzz", {"uniform": [0, 1]}, ["the spec has no such key."]),
        (RATE, {"uniform": [0.6, 0.1]}, ["[0.6, 0.1]", "low must be below high"]),
        (RATE, {"int": [3, 3]}, ["low must be below high"]),
        (RATE, {"choice": []}, ["at least one value"]),
        (RATE, {"choice": 3}, ["choice = 3", "at least one value"]),
        (RATE, {"choice": [0.1, 0.2, 0.1]}, ["names a value twice"]),
        (RATE, {"loguniform": [0, 1]}, ["low must be above 0"]),
        (RATE, {"int": [1, 2.5]}, ["whole numbers"]),
        (RATE, {"uniform": ["low", 1]}, ["low and high must be numbers"]),
        (RATE, {"uniform": [False, True]}, ["low and high must be numbers"]),
        (RATE, {"uniform": [0, float("inf")]}, ["low and high must be numbers"]),
        (RATE, {"uniform": [float("nan"), 1]}, ["low and high must be numbers"]),
        (RATE, {"uniform": [1]}, ["give [low, high]"]),
        (RATE, {"uniform": 0.1}, ["give [low, high]"]),
        (RATE, [0.1, 0.6], ["is not a range", "{uniform: [0.1, 0.6]}"]),
        (RATE, 0.1, ["0.1 is not a range"]),
        (RATE, {"uniform": [0, 1], "when": {"model.no_margin": False}}, ["is not a range"]),
        (RATE, {"logint": [1, 8]}, ["logint is not supported in this version"]),
        (RATE, {"quniform": [0, 1, 0.1]}, ["quniform is not supported in this version"]),
        (RATE, {"when": {"model.no_margin": True}}, ["when is not supported in this version"]),
        (RATE, {"normal": [0, 1]}, ["unknown kind of range 'normal'", "choice, uniform, loguniform and int"]),
        ("re_ranking.k1", {"int": [5, 40]}, ["re-ranking is not supported in this version"]),
        ("train.seed", {"int": [1, 9]}, ["cannot be searched"]),
        ("dataset.train_dataset_dir", {"choice": ["a", "b"]}, ["cannot be searched"]),
        ("train.results_dir", {"choice": ["a", "b"]}, ["cannot be searched"]),
        ("evaluate.checkpoint", {"choice": ["a", "b"]}, ["cannot be searched"]),
        ("results_dir", {"choice": ["a", "b"]}, ["cannot be searched"]),
    ],
)
def test_bad_entries(key: str, entry: Any, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_space({key: entry}, "some.yaml")
    message = str(caught.value)
    assert message.startswith(f"some.yaml: space.{key}: ") and "\n" not in message
    for part in parts:
        assert part in message


def test_all_bad_entries_are_named_at_once() -> None:
    with pytest.raises(InputError, match="(?s)2 problems.*space.train.seed.*space.re_ranking.k1"):
        parse_space({"train.seed": {"int": [1, 2]}, RATE: {"int": [1, 2]}, "re_ranking.k1": {"int": [1, 2]}}, "file")


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(InputError, match="space is empty"):
        parse_space({}, "file")


def test_a_key_and_its_alias_are_one_key() -> None:
    tree = {"train.optim.steps": {"choice": [[1], [2]]}, "train.optim.lr_steps": {"choice": [[1], [3]]}}
    with pytest.raises(InputError, match="space.train.optim.lr_steps: .*twice"):
        parse_space(tree, "file")
