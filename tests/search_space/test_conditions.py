"""Conditions against brute force: every value of every key with every value of the others."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_tune.errors import InputError

from ..helpers.search_spaces import BASE, make_space

NAME, FEAT, POOL, SOFT = "train.optim.name", "model.neck_feat", "model.pooling", "model.no_margin"
RATE, MARGIN = "train.optim.base_lr", "train.optim.triplet_loss_margin"
VALUES: dict[str, list[Any]] = {
    NAME: ["Adam", "SGD", "AdamW"],
    FEAT: ["after", "before"],
    POOL: ["avg", "gem"],
    SOFT: [False, True],
}


def held(entry: dict[str, Any], values: dict[str, Any]) -> bool:
    wanted = {key: value if isinstance(value, list) else [value] for key, value in entry.get("when", {}).items()}
    return all(values[key] in wanted[key] for key in wanted)


def configurations(tree: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """All values of the keys such that each is in its range, the first that holds, or the spec's where none does."""
    for values in itertools.product(*(dict.fromkeys([*VALUES[key], BASE[key]]) for key in tree)):
        found = dict(zip(tree, values, strict=True))
        ranges = {
            key: next((entry for entry in tree[key] if held(entry, found)), {"choice": [BASE[key]]}) for key in tree
        }
        if all(found[key] in ranges[key]["choice"] for key in tree):
            yield found


def faulty(tree: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether a condition names a value that never occurs, a range never holds, or two hold at once."""
    found = list(configurations(tree))
    entries = [(key, entry) for key in tree for entry in tree[key]]
    return (
        any(not any(held(entry, values) for values in found) for _, entry in entries)
        or any(sum(held(entry, values) for entry in tree[key]) > 1 for key in tree for values in found)
        or any(
            all(values[other] != value for values in found)
            for _, entry in entries
            for other, wanted in entry.get("when", {}).items()
            for value in (wanted if isinstance(wanted, list) else [wanted])
        )
    )


def some(values: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, unique=True)


@st.composite
def trees(draw: Any) -> dict[str, list[dict[str, Any]]]:
    """Spaces of choices; the conditions of a key name keys before it, so there is no circle."""
    tree: dict[str, list[dict[str, Any]]] = {}
    for key in VALUES:
        before, tree[key] = list(tree), []
        for _ in range(draw(st.integers(1, 2)) if before else 1):
            conditions = draw(st.lists(st.sampled_from(before), max_size=2, unique=True)) if before else []
            when = {other: draw(st.sampled_from(VALUES[other]) | some(VALUES[other])) for other in conditions}
            tree[key].append({"choice": draw(some(VALUES[key]))} | ({"when": when} if when else {}))
    return dict(draw(st.permutations(list(tree.items()))))


def canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


@settings(deadline=None, max_examples=400)
@given(trees())
def test_conditions_are_those_of_brute_force(tree: dict[str, list[dict[str, Any]]]) -> None:
    if faulty(tree):
        with pytest.raises(InputError, match="never has the value|never hold together|can apply at the same time"):
            make_space(tree)
        return
    space = make_space(tree)
    found = [{key: (BASE | made)[key] for key in tree} for made in space.all_configurations()]
    expected = list(configurations(tree))
    assert sorted(map(canonical, found)) == sorted(map(canonical, expected))
    for made in space.all_configurations():
        holding = {key: [entry for entry in tree[key] if held(entry, BASE | made)] for key in tree}
        active = {key: branch.when.keys() for key, branch in space.active_branches(made).items()}
        assert active == {key: entries[0].get("when", {}).keys() for key, entries in holding.items() if entries}
        assert made.keys() == active.keys()


BY_OPTIMIZER = [
    {"loguniform": [1e-4, 1e-2], "when": {NAME: "SGD"}},
    {"loguniform": [1e-5, 1e-3], "when": {NAME: ["Adam", "AdamW"]}},
]


def test_a_key_comes_after_those_that_decide_on_it() -> None:
    space = make_space(
        {RATE: BY_OPTIMIZER, SOFT: {"choice": [True, False]}, NAME: {"choice": ["SGD", "Adam", "AdamW"]}}
    )
    assert [parameter.key for parameter in space.parameters] == [SOFT, NAME, RATE]
    assert [branch.name for branch in space.parameters[2].branches] == [f"{RATE}#0", f"{RATE}#1"]


def test_the_spec_s_value_decides_where_a_key_is_not_searched() -> None:
    tree = {
        NAME: {"choice": ["SGD", "Adam"]},
        SOFT: {"value": True, "when": {NAME: "SGD"}},
        MARGIN: {"choice": [0.1, 0.2], "when": {SOFT: BASE[SOFT]}},
    }
    assert list(make_space(tree).all_configurations()) == [
        {NAME: "SGD", SOFT: True},
        {NAME: "Adam", MARGIN: 0.1},
        {NAME: "Adam", MARGIN: 0.2},
    ]


def test_values_of_conditions_are_read_as_the_field_reads_them() -> None:
    tree = {
        "train.optim.gamma": {"choice": ["1e-1", 1]},
        SOFT: {"choice": [True], "when": {"train.optim.gamma": "0.1"}},
    }
    assert list(make_space(tree).all_configurations()) == [
        {"train.optim.gamma": 0.1, SOFT: True},
        {"train.optim.gamma": 1.0},
    ]


def test_a_condition_on_a_list_is_a_list_of_lists() -> None:
    steps = "train.optim.lr_steps"
    tree = {steps: {"choice": [[40, 70], [60]]}, SOFT: {"value": True, "when": {steps: [[60]]}}}
    space = make_space(tree)
    assert list(space.all_configurations()) == [{steps: [40, 70]}, {steps: [60], SOFT: True}]
    assert space.as_entries() == tree


CHOICE = {"choice": ["SGD", "Adam"]}


@pytest.mark.parametrize(
    ("tree", "parts"),
    [
        ({SOFT: {"value": True, "when": {NAME: "SGD"}}}, [f"space.{SOFT}: when: {NAME} is not in the space"]),
        ({SOFT: {"value": True, "when": {"zzz": 1}}}, ["zzz is not in the space"]),
        ({NAME: CHOICE, SOFT: {"value": True, "when": {NAME: "LAMB"}}}, [f"{NAME} never has the value 'LAMB'"]),
        ({NAME: CHOICE, SOFT: {"value": True, "when": {NAME: ["SGD", "LAMB"]}}}, ["never has the value 'LAMB'"]),
        (
            {RATE: {"uniform": [0, 1]}, SOFT: {"value": True, "when": {RATE: 0.5}}},
            [f"{RATE} never has the value 0.5"],
        ),
        (
            {
                NAME: CHOICE,
                SOFT: {"value": True, "when": {NAME: "SGD"}},
                POOL: {"value": "gem", "when": {NAME: "Adam", SOFT: True}},
            },
            [f"space.{POOL}: ", "never hold together"],
        ),
        ({NAME: CHOICE, RATE: [{"uniform": [0, 1]}, *BY_OPTIMIZER[:1]]}, ["can apply at the same time", "'uniform'"]),
        (
            {
                NAME: CHOICE,
                SOFT: {"choice": [True, False]},
                RATE: [BY_OPTIMIZER[0], {"uniform": [0, 1], "when": {SOFT: True}}],
            },
            ["can apply at the same time"],
        ),
        ({NAME: CHOICE | {"when": {NAME: "SGD"}}}, [f"space: when: the conditions form a circle among {NAME}."]),
        (
            {NAME: CHOICE | {"when": {SOFT: True}}, SOFT: {"choice": [True, False], "when": {NAME: "SGD"}}},
            [f"a circle among {NAME}, {SOFT}."],
        ),
        ({NAME: CHOICE, SOFT: {"value": True, "when": {}}}, ["when = {}", "write conditions"]),
        ({NAME: CHOICE, SOFT: {"value": True, "when": "SGD"}}, ["when = 'SGD'", "write conditions"]),
    ],
)
def test_bad_conditions(tree: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        make_space(tree)
    message = str(caught.value)
    assert message.startswith("some.yaml: space") and "\n" not in message
    for part in parts:
        assert part in message


def test_all_keys_with_bad_conditions_are_named_at_once() -> None:
    tree = {NAME: CHOICE, SOFT: {"value": True, "when": {NAME: "x"}}, POOL: {"value": "gem", "when": {NAME: "y"}}}
    with pytest.raises(InputError, match=rf"(?s)2 problems.*space.{SOFT}: when.*space.{POOL}: when"):
        make_space(tree)


def test_conditions_that_cannot_be_looked_through_are_refused() -> None:
    many = [f"dataset.color_jitter.{name}" for name in ("prob", "brightness", "contrast", "saturation", "hue")]
    tree: dict[str, Any] = {key: {"choice": [index / 10 for index in range(9)]} for key in many}
    tree[SOFT] = {"choice": [True, False], "when": {key: [index / 10 for index in range(9)] for key in many}}
    with pytest.raises(
        InputError, match=f"space.{SOFT}: when: .* more than 20,000 combinations of other keys: use fewer"
    ):
        make_space(tree)
