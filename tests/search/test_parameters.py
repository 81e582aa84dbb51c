from typing import Any

from reid_tune.journal.state import RunState, SweepState, trial_run
from reid_tune.search.parameters import searched_parameters

from ..helpers.events import sweep_header

RATE, MARGIN, NAME, LISTS = "train.optim.base_lr", "train.margin", "train.optim.name", "train.optim.lr_steps"
SPACE: dict[str, Any] = {
    RATE: {"loguniform": [1e-4, 1e-2]},
    MARGIN: {"uniform": [0.0, 1.0]},
    NAME: [{"choice": ["a", "b"], "when": {RATE: 1}}],
    "train.optim.steps": {"list": [{"int": [1, 90]}, {"int": [1, 90]}]},  # An alias of lr_steps.
}


def state_of(parameters: list[dict[str, Any]], values: list[float]) -> SweepState:
    sweep = {"objective": {"metric": "mAP"}, "space": SPACE}
    state = SweepState(sweep_header(sweep=sweep, spec={RATE: 1e-3, NAME: "c", LISTS: [40, 70]}))
    for number, (own, value) in enumerate(zip(parameters, values, strict=True)):
        run = RunState(trial_run(number), own, state="finished", epochs={1: {"mAP": value}})
        state.runs[run.name] = run
    return state


def test_values_are_those_of_the_trials_that_have_them() -> None:
    rate, _, name, lists = searched_parameters(
        state := state_of([{}, {RATE: 1e-2}, {NAME: None, RATE: 1e-4}], [0.1, 0.2, 0.3])
    )
    assert [key.label for key in searched_parameters(state)] == ["base_lr", "margin", "optim.name", "lr_steps"]
    assert rate.values_by_trial(state.trials) == {0: 1e-3, 1: 1e-2, 2: 1e-4}
    assert name.values_by_trial(state.trials) == {0: "c", 2: None}
    assert lists.key == LISTS and lists.values_by_trial(state.trials) == dict.fromkeys(range(3), [40, 70])
    assert rate.is_logarithmic and not name.is_logarithmic
    assert rate.is_numeric(state.trials) and not name.is_numeric(state.trials) and not lists.is_numeric(state.trials)
    assert name.value_names(state.trials) == ['"c"', "null"]
    assert rate.value_names(state.trials) == ["0.0001", "0.001", "0.01"]


def test_a_key_that_is_new_has_the_value_of_the_spec_in_earlier_trials() -> None:
    state = state_of([{}, {RATE: 1.0, MARGIN: 0.5}, {RATE: 1e-3}, {RATE: 1e-3, MARGIN: 0.1, NAME: "a"}], [0.1] * 4)
    state.header.spec[MARGIN] = 0.3
    _, margin, name, _ = searched_parameters(state)
    assert margin.values_by_trial(state.trials) == {0: 0.3, 1: 0.5, 2: 0.3, 3: 0.1}
    assert name.values_by_trial(state.trials) == {0: "c", 1: "c", 3: "a"}, "where its condition holds"
