import builtins
import json
import math
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from reid_tune.search_space.range_syntax import parse_range
from reid_tune.search_space.ranges import RANGE_KINDS, Choice, NumberRange, Range


def read(entry: Any) -> Range:
    return parse_range(entry, lambda value: value)


@pytest.mark.parametrize(
    ("entry", "expected", "distribution"),
    [
        ({"uniform": [0.1, 0.6]}, NumberRange("uniform", 0.1, 0.6), FloatDistribution(0.1, 0.6)),
        ({"uniform": ["1e-4", "1e-3"]}, NumberRange("uniform", 1e-4, 1e-3), FloatDistribution(1e-4, 1e-3)),
        ({"loguniform": [1e-4, 1]}, NumberRange("loguniform", 1e-4, 1), FloatDistribution(1e-4, 1, log=True)),
        ({"int": [1, 20.0]}, NumberRange("int", 1, 20), IntDistribution(1, 20)),
        ({"logint": [1, 64]}, NumberRange("logint", 1, 64), IntDistribution(1, 64, log=True)),
        ({"quniform": [0.1, 0.6, 0.1]}, NumberRange("quniform", 0.1, 0.6, 0.1), IntDistribution(0, 5)),
        ({"quniform": [32, 128, 16]}, NumberRange("quniform", 32, 128, 16), IntDistribution(0, 6)),
        ({"choice": ["a", None]}, Choice(("a", None)), CategoricalDistribution(['"a"', "null"])),
    ],
)
def test_kinds_and_their_distributions(entry: Any, expected: Range, distribution: Any) -> None:
    assert read(entry) == expected
    assert expected.distributions("key") == {"key": distribution}


def test_one_value_is_set_and_unknown_to_optuna() -> None:
    for entry in ({"value": [40, 70]}, {"choice": [[40, 70]]}):
        range = read(entry)
        assert range == Choice(([40, 70],))
        assert (range.distributions("key"), range.decode("key", {})) == ({}, [40, 70])
        assert (range.encode("key", [40, 70]), range.encode("key", [40])) == ({}, None)


def test_a_list_has_a_parameter_for_each_element_that_varies() -> None:
    range = read({"list": [{"int": [5, 9]}, {"choice": [10, 12]}, {"value": 20}]})
    assert range.distributions("key") == {
        "key[0]": IntDistribution(5, 9),
        "key[1]": CategoricalDistribution(["10", "12"]),
    }
    assert range.decode("key", {"key[0]": 7, "key[1]": "12"}) == [7, 12, 20]
    assert range.encode("key", [7, 12, 20]) == {"key[0]": 7, "key[1]": "12"}
    for outside in ([7, 12], [7, 12, 21], [7, 11, 20], [4, 12, 20], 7, None):
        assert range.encode("key", outside) is None
    assert list(range.values() or ()) == [[a, b, 20] for a in (5, 6, 7, 8, 9) for b in (10, 12)]
    assert read({"list": [{"int": [5, 9]}, {"uniform": [0, 1]}]}).values() is None


def test_the_values_of_a_huge_list_are_not_made_before_they_are_wanted() -> None:
    values = read({"list": [{"int": [1, 10**9]}, {"int": [1, 10**9]}]}).values()
    assert next(iter(values or ())) == [1, 1]


def test_steps_are_decimal() -> None:
    values = read({"quniform": [0.1, 0.7, 0.1]}).values()
    assert list(values or ()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    whole = list(read({"quniform": [32, 128, 32]}).values() or ())
    assert whole == [32, 64, 96, 128] and all(type(value) is int for value in whole)


@pytest.mark.parametrize(
    ("entry", "outside"),
    [
        ({"uniform": [0.1, 0.6]}, [0.0999, 0.6001, None, "Adam", [0.1]]),
        ({"int": [1, 4]}, [0, 5, 2.5, None]),
        ({"logint": [1, 4]}, [0, 5, 2.5, None]),
        ({"quniform": [0.1, 0.7, 0.2]}, [0.2, 0.9, -0.1, None, "0.3"]),
        ({"choice": ["Adam", "AdamW"]}, ["SGD", None, 1]),
        ({"choice": [[40, 70], [60]]}, [[40], 60]),
    ],
)
def test_values_outside(entry: Any, outside: list[Any]) -> None:
    assert [read(entry).encode("key", value) for value in outside] == [None] * len(outside)


def test_a_choice_of_whole_numbers_knows_the_float_of_the_spec() -> None:
    assert read({"choice": [1, 2]}).encode("key", 1.0) == {"key": "1"}


def test_a_number_that_yaml_reads_as_text_is_a_number() -> None:
    entry = yaml.safe_load("{loguniform: [1e-4, 1e-2]}")
    assert entry["loguniform"] == ["1e-4", "1e-2"]
    assert read(entry) == NumberRange("loguniform", 1e-4, 1e-2)


bounds = st.integers(-50, 50).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 99)))
positive = st.integers(1, 50).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 99)))
tenths = st.tuples(st.integers(-50, 50), st.integers(1, 9), st.integers(1, 20))
plain = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "b"]) | st.floats(2.25, 9.75)
options = st.lists(plain | st.lists(plain, max_size=3), min_size=1, max_size=4, unique_by=json.dumps).filter(
    lambda values: all(values.count(value) == 1 for value in values)
)
flat = st.one_of(
    bounds.map(lambda pair: {"uniform": [pair[0] / 7, pair[1] / 7]}),
    positive.map(lambda pair: {"loguniform": [pair[0] / 7, pair[1] / 7]}),
    bounds.map(lambda pair: {"int": list(pair)}),
    positive.map(lambda pair: {"logint": list(pair)}),
    tenths.map(lambda three: {"quniform": [three[0] / 10, (three[0] + three[1] * three[2]) / 10, three[1] / 10]}),
    options.map(lambda values: {"choice": values}),
    plain.map(lambda value: {"value": value}),
)
entries = flat | st.lists(flat, min_size=1, max_size=3).map(lambda elements: {"list": elements})


@settings(deadline=None)
@given(entries, st.integers(0, 2**32 - 1))
def test_what_is_drawn_comes_back_from_the_spec(entry: Any, seed: int) -> None:
    range = read(entry)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask(range.distributions("key"))
    value = range.decode("key", trial.params)
    assert json.loads(json.dumps(value)) == value
    assert range.encode("key", value) == trial.params
    assert range.values() is None or value in list(range.values() or ())


@settings(deadline=None)
@given(entries)
def test_a_range_written_down_is_read_again(entry: Any) -> None:
    range = read(entry)
    assert read(json.loads(json.dumps(range.as_entry()))) == range
    if range.values() is not None:
        values = list(range.values() or ())
        assert all(range.decode("key", range.encode("key", value) or {}) == value for value in values)
        assert len(values) == math.prod(
            len(d.choices) if isinstance(d, CategoricalDistribution) else d.high - d.low + 1
            for d in range.distributions("key").values()
        )


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"uniform": [0.6, 0.1]}, ["[0.6, 0.1]", "low must be below high"]),
        ({"int": [3, 3]}, ["low must be below high"]),
        ({"choice": []}, ["at least one value"]),
        ({"choice": 3}, ["choice = 3", "at least one value"]),
        ({"choice": [0.1, 0.2, 0.1]}, ["has a value twice"]),
        ({"choice": [yaml.safe_load("2020-01-01")]}, ["datetime.date", "is not a number, a string"]),
        ({"loguniform": [0, 1]}, ["low must be above 0"]),
        ({"logint": [0, 8]}, ["low must be above 0"]),
        ({"int": [1, 2.5]}, ["whole numbers"]),
        ({"logint": [1.5, 3]}, ["whole numbers"]),
        ({"int": [1, 1e300]}, ["whole numbers"]),
        ({"uniform": ["low", 1]}, ["low and high must be numbers"]),
        ({"uniform": [False, True]}, ["low and high must be numbers"]),
        ({"uniform": [0, math.inf]}, ["low and high must be numbers"]),
        ({"uniform": [math.nan, 1]}, ["low and high must be numbers"]),
        ({"uniform": [1]}, ["give [low, high]"]),
        ({"uniform": 0.1}, ["give [low, high]"]),
        ({"quniform": [0, 1]}, ["give [low, high, step]"]),
        ({"quniform": [0, 1, "x"]}, ["low, high and step must be numbers"]),
        ({"quniform": [0, 1, 0.3]}, ["a whole number of steps"]),
        ({"quniform": [0, 1, 0]}, ["a whole number of steps"]),
        ({"quniform": [0, 1, -0.5]}, ["a whole number of steps"]),
        ({"quniform": [0, 1, 1e-9]}, ["at most 1,000,000"]),
        ({"list": {"int": [1, 2]}}, ["a range for each element"]),
        ({"list": [{"int": [1, 2]}, 7]}, ["7 is not a range"]),
        ({"list": [{"int": [2, 1]}]}, ["int = [2, 1]", "low must be below high"]),
        ([0.1, 0.6], ["is not a range", "{uniform: [0.1, 0.6]}"]),
        (0.1, ["0.1 is not a range", "{value: 0.3}"]),
        ({"uniform": [0, 1], "int": [0, 1]}, ["is not a range"]),
        ({}, ["{} is not a range"]),
        ({"normal": [0, 1]}, ["unknown kind of range 'normal'", *RANGE_KINDS]),
    ],
)
def test_bad_ranges(entry: Any, parts: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        read(entry)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "count", "expected"),
    [
        ({"uniform": [0, 0.8]}, 5, [0, 0.2, 0.4, 0.6, 0.8]),
        ({"uniform": [-1, 1]}, 2, [-1, 1]),
        ({"loguniform": [1e-4, 1]}, 5, [1e-4, 1e-3, 1e-2, 1e-1, 1]),
        ({"int": [5, 40]}, 6, [5, 12, 19, 26, 33, 40]),
        ({"int": [1, 3]}, 7, [1, 2, 3]),
        ({"logint": [1, 64]}, 4, [1, 4, 16, 64]),
        ({"logint": [1, 4]}, 9, [1, 2, 3, 4]),
        ({"quniform": [0.1, 0.7, 0.1]}, 3, [0.1, 0.4, 0.7]),
        ({"quniform": [32, 128, 32]}, 9, [32, 64, 96, 128]),
        ({"choice": ["c", "a", [1]]}, 2, ["c", "a", [1]]),
        ({"value": 0.3}, 5, [0.3]),
        ({"list": [{"int": [1, 9]}, {"choice": [10, 12]}]}, 3, [[a, b] for a in (1, 5, 9) for b in (10, 12)]),
    ],
)
def test_few_values_stand_for_all(entry: Any, count: int, expected: list[Any]) -> None:
    assert read(entry).spaced_values(count) == expected


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["uniform", "loguniform", "int", "logint", "quniform"]), st.data())
def test_values_that_stand_for_all_lie_evenly_from_end_to_end(kind: str, data: st.DataObject) -> None:
    low = data.draw(st.integers(1, 50))
    high = low + data.draw(st.integers(1, 60)) * (step := data.draw(st.integers(1, 4)))
    count = data.draw(st.integers(2, 9))
    range = read({kind: [low, high] + ([step] if kind == "quniform" else [])})
    found = range.spaced_values(count)
    assert (found[0], found[-1]) == (low, high) and len(found) <= count
    assert found == sorted(set(found)) and all(range.encode("key", value) is not None for value in found)
    if kind in ("int", "logint", "quniform"):
        assert all(type(value) is int for value in found)
    shares = [index / (count - 1) for index in builtins.range(count)]
    even = [low * (high / low) ** at if kind.startswith("log") else low + (high - low) * at for at in shares]
    slack = {"int": 0.5, "logint": 0.5, "quniform": step / 2}.get(kind, 0) + 1e-9
    assert all(min(abs(value - wanted) for value in found) <= slack for wanted in even)
