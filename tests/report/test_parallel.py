import math
import re
from typing import Any

import pytest

from reid_tune.journal.state import RunState, SweepState, trial_run
from reid_tune.report.parallel import Scale, parallel_chart, varied_parameters
from reid_tune.report.svg import CARD, COLOURS
from reid_tune.search.parameters import SearchedParameter

from ..helpers.events import sweep_header

RATE, STEPS, NAME = "train.optim.base_lr", "train.optim.lr_steps", "train.optim.name"
STATES = ("finished", "finished", "stopped", "failed")
SPACE = {
    NAME: {"choice": ["Adam", "SGD"]},
    RATE: {"loguniform": [1e-4, 1e-2]},
    STEPS: {"choice": [[1], [2]], "when": {NAME: "SGD"}},
    "train.seed": {"value": 3},
}


def state_of(configurations: list[dict[str, Any]], space: dict[str, Any] = SPACE) -> SweepState:
    """Trials of all states but the first, which is trial 0; the second is the best, and the fifth has no score."""
    sweep = {"objective": {"metric": "mAP"}, "budget": {"trials": 9}, "space": space}
    spec = {NAME: "Adam", RATE: 1e-3, STEPS: [1], "train.seed": 3}
    state = SweepState(sweep_header(sweep=sweep, spec=spec))
    for number, configuration in enumerate([{}, *configurations]):
        run = RunState(
            trial_run(number), configuration, state=("finished", "finished", "stopped", "failed")[number % 4]
        )
        run.epochs = {1: {"mAP": 0.5 / (number + 1) + (number == 1)}} if number != 4 else {}
        state.runs[run.name] = run
    return state


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def points_of(svg: str, colour: str) -> list[list[str]]:
    """The vertices of each line of a colour; a gap begins a new part."""
    lines = re.findall(rf'<path d="([^"]*)"[^>]*stroke: var\(--{colour}\)', svg)
    return [re.findall(r"[ML]", line) for line in lines]


def test_axes_lines_and_gaps() -> None:
    trials = [{NAME: "SGD", RATE: 1e-2, STEPS: [2]}, {NAME: "Adam", RATE: 1e-4}, {NAME: "SGD", RATE: 1e-3, STEPS: [1]}]
    state = state_of([{**trial, "train.seed": 3} for trial in trials])
    assert [parameter.key for parameter in varied_parameters(state)] == [NAME, RATE, STEPS]
    svg = parallel_chart(state, {})
    drawn = texts(svg)
    assert [text for text in drawn if text in ("optim.name", "base_lr (log)", "lr_steps", "mAP %")] == [
        "optim.name",
        "base_lr (log)",
        "lr_steps",
        "mAP %",
    ]
    assert {"Adam", "SGD", "0.0001", "0.01", "[1]", "[2]", "125", "12.5"} <= set(drawn)
    # The best trial has all values; the stopped one lacks the conditional key, so that its score is a point.
    assert points_of(svg, "orange") == [["M", "L", "L", "L"]]
    assert points_of(svg, "faint") == [["M", "L", "M"]]
    assert CARD not in svg and not set(COLOURS.values()) & set(re.findall(r"#[0-9a-f]{6}", svg))


@pytest.mark.parametrize(
    ("entry", "values", "positions"),
    [
        ({"uniform": [0, 1]}, [0.25, 0.75, 0.5], [0, 1, 0.5]),
        ({"loguniform": [1e-4, 1e-2]}, [1e-4, 1e-2, 1e-3], [0, 1, 0.5]),
        ({"loguniform": [1e-4, 1e-2]}, [0.0, 1e-2, 5e-3], [0, 1, 0.5]),
        ({"int": [1, 3]}, [None, 1, 3], [math.nan, 0, 1]),
        ({"int": [1, 3]}, [2, 2, 2], [0, 0, 0]),
    ],
)
def test_numbers_have_their_place(entry: Any, values: list[Any], positions: list[float]) -> None:
    trials = [RunState(trial_run(number), {"k": value} if number else {}) for number, value in enumerate(values)]
    scale = Scale.of_parameter(SearchedParameter("k", entry, values[0]), trials)
    drawn = [scale.positions.get(number, math.nan) for number in range(len(values))]
    assert drawn == pytest.approx(positions, nan_ok=True)


def test_of_many_keys_the_most_important_are_drawn() -> None:
    keys = [f"k{index}" for index in range(15)]
    state = state_of([dict.fromkeys(keys, 0.25), dict.fromkeys(keys, 0.5)], {key: {"uniform": [0, 1]} for key in keys})
    state.header.spec.update(dict.fromkeys(keys, 0.75))
    svg = parallel_chart(state, {key: index for index, key in enumerate(keys)})
    assert [text for text in texts(svg) if text in keys] == keys[4:]


def test_wide_charts_scroll_on_narrow_pages() -> None:
    svg = parallel_chart(state_of([{NAME: "SGD", RATE: 1e-2, STEPS: [2]}]), {})
    assert 'style="min-width: 420px; max-width: 660px"' in svg.split(">", 1)[0]
