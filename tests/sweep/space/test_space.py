import json
from typing import Any

import optuna
import pytest

from reid_tune.errors import InputError
from reid_tune.sweep.space.space import Space

from ..spaces import BASE, make_space

RATE, NAME, SOFT = "train.optim.base_lr", "train.optim.name", "model.no_margin"
MARGIN, STEPS = "train.optim.triplet_loss_margin", "train.optim.lr_steps"
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


def draws(space: Space, count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
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
def test_what_lies_inside(changes: dict[str, Any], inside: bool) -> None:
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
    again = make_space(json.loads(json.dumps(space.entries())))
    assert again == space
    assert space.entries()[NAME] == TREE[NAME] and space.entries()[MARGIN] == TREE[MARGIN]


def test_values_are_those_of_the_field() -> None:
    tree = {
        "train.optim.weight_decay": {"choice": ["1e-4", 1]},
        "dataset.batch_size": {"choice": [16.0, "32"]},
        STEPS: {"choice": [[4], ["5", 6]]},
    }
    first, *_, last = make_space(tree).combinations()
    assert first == {"train.optim.weight_decay": 1e-4, "dataset.batch_size": 16, STEPS: [4]}
    assert last == {"train.optim.weight_decay": 1.0, "dataset.batch_size": 32, STEPS: [5, 6]}
    assert type(first["dataset.batch_size"]) is int
    # What the field refuses is left to preflight, which names the rule.
    assert next(make_space({"dataset.batch_size": {"value": "many"}}).combinations()) == {"dataset.batch_size": "many"}


def test_constraints_see_the_spec_where_a_key_is_not_searched() -> None:
    space = make_space({SOFT: TREE[SOFT], MARGIN: TREE[MARGIN]}, f"{MARGIN} < 0.35", "dataset.batch_size == 64")
    broken = {
        str(made.get(MARGIN)): [constraint.text for constraint in space.broken(made)] for made in space.combinations()
    }
    late = [f"{MARGIN} < 0.35"]
    assert broken == {"None": [], "0.1": [], "0.2": [], "0.3": [], "0.4": late, "0.5": late, "0.6": late}
    assert not space.broken({})


def test_a_constraint_that_cannot_be_computed_names_the_file() -> None:
    space = make_space({"dataset.padding": {"int": [0, 2]}}, "1 / dataset.padding > 0.1")
    assert not space.broken({"dataset.padding": 2})
    with pytest.raises(InputError, match=r"some.yaml: constraints: .*dataset.padding = 0: (float )?division by zero"):
        space.broken({"dataset.padding": 0})


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
        make_space({key: entry})
    message = str(caught.value)
    assert message.startswith(f"some.yaml: space.{key}: ") and "\n" not in message
    for part in parts:
        assert part in message


def test_all_bad_entries_and_constraints_are_named_at_once() -> None:
    tree = {"train.seed": {"int": [1, 2]}, RATE: {"int": [1, 2]}, "re_ranking.k1": {"int": [1, 2]}}
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
