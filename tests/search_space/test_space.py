import json
from typing import Any

import optuna
import pytest

from reid_tune.errors import InputError
from reid_tune.search_space.space import SearchSpace

from ..helpers.search_spaces import BASE, make_space, make_spaces

RATE, NAME, SOFT = "train.optim.base_lr", "train.optim.name", "model.no_margin"
MARGIN, STEPS = "train.optim.triplet_loss_margin", "train.optim.lr_steps"
K1, K2, LAMBDA = "re_ranking.k1", "re_ranking.k2", "re_ranking.lambda_value"
TREE = {
    NAME: {"choice": ["SGD", "Adam", "AdamW"]},
    RATE: [
        {"loguniform": [1e-3, 1e-1], "when": {NAME: "SGD"}},
        {"loguniform": [1e-5, 1e-3], "when": {NAME: ["Adam", "AdamW"]}},
    ],
    SOFT: {"choice": [True, False]},
    MARGIN: {"quniform": [0.1, 0.6, 0.1], "when": {SOFT: False}},
    STEPS: {"list": [{"int": [30, 50]}, {"choice": [60, 70]}]},
    "train.optim.gamma": {"value": 0.1},
}


def draws(space: SearchSpace, count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Configurations with the values that Optuna gave."""
    sampler, found = optuna.samplers.RandomSampler(seed=1), []
    study = optuna.create_study(sampler=sampler)
    for _ in range(count):
        trial = study.ask()
        made = space.draw(lambda name, distribution, trial=trial: trial._suggest(name, distribution))
        found.append((made, trial.params))
    return found


def test_a_draw_comes_back_from_its_configuration() -> None:
    space = make_space(TREE)
    seen = set()
    for made, params in draws(space, 100):
        assert set(made) == set(TREE) - ({MARGIN} if made[SOFT] else set())
        assert (1e-3 <= made[RATE] <= 1e-1) if made[NAME] == "SGD" else (1e-5 <= made[RATE] <= 1e-3)
        encoded = space.encode(json.loads(json.dumps(made)))
        assert encoded is not None and encoded[0] == params and encoded[1].keys() == params.keys()
        seen |= params.keys()
    assert seen == {NAME, f"{RATE}#0", f"{RATE}#1", SOFT, MARGIN, f"{STEPS}[0]", f"{STEPS}[1]"}


@pytest.mark.parametrize(
    ("changes", "inside"),
    [
        ({}, True),
        ({RATE: 1e-2}, False),
        ({RATE: 1e-2, NAME: "SGD"}, True),
        ({SOFT: True, MARGIN: 0.35}, True),
        ({MARGIN: 0.35}, False),
        ({"train.optim.gamma": 0.5}, False),
        ({STEPS: [40]}, False),
        ({NAME: "RAdam"}, False),
    ],
)
def test_values_inside(changes: dict[str, Any], inside: bool) -> None:
    assert (make_space(TREE).encode(changes) is not None) is inside


def test_the_spec_s_own_values_in_optunas_terms() -> None:
    encoded = make_space(TREE).encode({})
    assert encoded is not None
    assert encoded[0] == {
        NAME: '"Adam"',
        f"{RATE}#1": 0.00035,
        SOFT: "false",
        MARGIN: 2,
        f"{STEPS}[0]": 40,
        f"{STEPS}[1]": "70",
    }


def test_a_space_written_down_is_read_again() -> None:
    space = make_space(TREE)
    again = make_space(json.loads(json.dumps(space.as_entries())))
    assert again == space
    assert space.as_entries()[NAME] == TREE[NAME] and space.as_entries()[MARGIN] == TREE[MARGIN]


def test_values_are_those_of_the_field() -> None:
    tree = {
        "train.optim.weight_decay": {"choice": ["1e-4", 1]},
        "dataset.batch_size": {"choice": [16.0, "32"]},
        STEPS: {"choice": [[4], ["5", 6]]},
    }
    first, *_, last = make_space(tree).all_configurations()
    assert first == {"train.optim.weight_decay": 1e-4, "dataset.batch_size": 16, STEPS: [4]}
    assert last == {"train.optim.weight_decay": 1.0, "dataset.batch_size": 32, STEPS: [5, 6]}
    assert type(first["dataset.batch_size"]) is int
    # What the field refuses is left to preflight, which names the rule.
    assert next(make_space({"dataset.batch_size": {"value": "many"}}).all_configurations()) == {
        "dataset.batch_size": "many"
    }


def test_constraints_see_the_spec_where_a_key_is_not_searched() -> None:
    space = make_space({SOFT: TREE[SOFT], MARGIN: TREE[MARGIN]}, f"{MARGIN} < 0.35", "dataset.batch_size == 64")
    broken = {
        str(made.get(MARGIN)): [constraint.text for constraint in space.broken_constraints(made)]
        for made in space.all_configurations()
    }
    late = [f"{MARGIN} < 0.35"]
    assert broken == {"None": [], "0.1": [], "0.2": [], "0.3": [], "0.4": late, "0.5": late, "0.6": late}
    assert not space.broken_constraints({})


def test_a_constraint_that_cannot_be_computed_names_the_file() -> None:
    space = make_space({"dataset.padding": {"int": [0, 2]}}, "1 / dataset.padding > 0.1")
    assert not space.broken_constraints({"dataset.padding": 2})
    with pytest.raises(InputError, match=r"some.yaml: constraints: .*dataset.padding = 0: (float )?division by zero"):
        space.broken_constraints({"dataset.padding": 0})


def test_an_alias_is_its_key() -> None:
    assert make_space({"train.grad_clip": {"uniform": [0, 1]}}).parameters[0].key == "train.clip_grad_norm"


@pytest.mark.parametrize(
    ("key", "entry", "parts"),
    [
        ("train.optim.base_rl", {"uniform": [0, 1]}, ["no such key", "did you mean train.optim.base_lr?"]),
        ("base_lr", {"uniform": [0, 1]}, ["did you mean train.optim.base_lr?"]),
        ("zzzzzz", {"uniform": [0, 1]}, ["the spec has no such key."]),
        (RATE, {"uniform": [0.6, 0.1]}, ["[0.6, 0.1]", "low must be below high"]),
        (RATE, [{"uniform": [0.6, 0.1]}], ["low must be below high"]),
        (RATE, 0.1, ["0.1 is not a range", "{value: 0.3}"]),
        (RATE, [], ["[] is not a range"]),
        (RATE, [0.1, 0.6], ["[0.1, 0.6] is not a range"]),
        (RATE, {"when": {NAME: "SGD"}}, ["is not a range"]),
        (RATE, {"normal": [0, 1]}, ["unknown kind of range 'normal'"]),
        ("re_ranking.re_ranking", {"choice": [True, False]}, ["cannot be searched"]),
        ("re_ranking.num_query", {"int": [5, 40]}, ["cannot be searched"]),
        ("train.seed", {"int": [1, 9]}, ["cannot be searched"]),
        ("dataset.train_dataset_dir", {"choice": ["a", "b"]}, ["cannot be searched"]),
        ("train.results_dir", {"choice": ["a", "b"]}, ["cannot be searched"]),
        ("evaluate.checkpoint", {"choice": ["a", "b"]}, ["cannot be searched"]),
        ("results_dir", {"choice": ["a", "b"]}, ["cannot be searched"]),
    ],
)
def test_bad_entries(key: str, entry: Any, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        make_space({key: entry})
    message = str(caught.value)
    assert message.startswith(f"some.yaml: space.{key}: ") and "\n" not in message
    for part in parts:
        assert part in message


def test_all_bad_entries_and_constraints_are_named_at_once() -> None:
    tree = {"train.seed": {"int": [1, 2]}, RATE: {"int": [1, 2]}, K1: {"int": [2, 1]}}
    with pytest.raises(InputError, match="(?s)3 problems.*space.train.seed.*space.re_ranking.k1.*constraints: 'x <'"):
        make_space(tree, "x <")


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(InputError, match="space is empty"):
        make_space({})


def test_a_key_and_its_alias_are_one_key() -> None:
    with pytest.raises(InputError, match="space.train.optim.lr_steps: .*twice"):
        make_space({"train.optim.steps": {"choice": [[1], [2]]}, STEPS: {"choice": [[1], [3]]}})


def test_the_key_of_encryption_is_no_value_of_the_spec() -> None:
    assert "encryption_key" not in BASE and BASE[STEPS] == [40, 70]


RERANKING: dict[str, Any] = {K1: {"int": [5, 40]}, K2: {"int": [1, 12]}, LAMBDA: {"uniform": [0, 0.8]}}


def test_re_ranking_is_kept_apart_with_the_constraints_that_concern_it() -> None:
    low, few, rate = f"{K2} < {K1}", f"{LAMBDA} <= dataset.batch_size", f"{RATE} < 1"
    trials, reranking = make_spaces(
        {K2: RERANKING[K2], **TREE, K1: RERANKING[K1], LAMBDA: RERANKING[LAMBDA]}, low, few, rate
    )
    assert trials == make_space(TREE, rate)
    assert [parameter.key for parameter in reranking.parameters] == [K2, K1, LAMBDA]
    assert [constraint.text for constraint in reranking.constraints] == [low, few]
    assert reranking.as_entries() == RERANKING
    assert make_spaces(TREE)[1].parameters == ()


def test_re_ranking_may_have_conditions_among_its_own_keys() -> None:
    tree = {K2: {"choice": [1, 6]}, K1: {"int": [5, 40], "when": {K2: 6}}, NAME: TREE[NAME]}
    assert list(make_spaces(tree)[1].spaced_configurations(3)) == [{K2: 1}, *({K2: 6, K1: k1} for k1 in (5, 22, 40))]


@pytest.mark.parametrize(
    ("tree", "constraints", "parts"),
    [
        (RERANKING, [], ["no key that trials search"]),
        (
            TREE | {K1: {"int": [5, 40], "when": {NAME: "SGD"}}},
            [],
            [f"space.{K1} has a condition on {NAME}", "separately"],
        ),
        (
            {NAME: {"choice": ["SGD", "Adam"], "when": {K1: 5}}, **RERANKING},
            [],
            [f"space.{NAME} has", K1, "separately"],
        ),
        (TREE | RERANKING, [f"{K1} * {RATE} < 9"], [f"constraints: {K1} * {RATE} < 9: ", "write two constraints"]),
    ],
)
def test_re_ranking_is_not_mixed_with_what_trials_search(
    tree: dict[str, Any], constraints: list[str], parts: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        make_spaces(tree, *constraints)
    message = str(caught.value)
    assert message.startswith("some.yaml: ") and "\n" not in message
    assert all(part in message for part in parts)


def test_a_few_configurations_stand_for_all_that_satisfy_the_constraints() -> None:
    tree = {SOFT: TREE[SOFT], MARGIN: TREE[MARGIN], "dataset.padding": {"int": [0, 100]}}
    found = list(make_space(tree, f"{MARGIN} < 0.5", "dataset.padding > 0").spaced_configurations(3))
    margins = [{SOFT: True}, {SOFT: False, MARGIN: 0.1}, {SOFT: False, MARGIN: 0.3}]  # of 0.1, 0.3 and 0.6
    assert found == [made | {"dataset.padding": padding} for made in margins for padding in (50, 100)]


def test_names_with_the_same_conditions_are_together() -> None:
    groups = make_space(
        TREE | {"train.optim.momentum": {"uniform": [0, 1], "when": {NAME: "SGD"}}}
    ).conditional_groups()
    free = {NAME, SOFT, f"{STEPS}[0]", f"{STEPS}[1]"}
    slow = {f"{RATE}#0", "train.optim.momentum"}
    expected = {name: group for group in (free, slow, {f"{RATE}#1"}, {MARGIN}) for name in group}
    assert {name: set(group) for name, group in groups.items()} == expected


def test_a_configuration_has_the_given_values_where_their_keys_are_searched() -> None:
    space = make_space(TREE)
    own = {key: BASE[key] for key in TREE}
    soft = {key: value for key, value in own.items() if key != MARGIN} | {SOFT: True}
    assert space.complete({}) == own
    assert space.complete({MARGIN: 9.0, "train.seed": 5, "train.optim.gamma": 0.7}) == own | {MARGIN: 9.0}
    assert space.complete({SOFT: True, MARGIN: 0.2}) == soft
