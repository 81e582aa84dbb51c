import re
from typing import Any

import pytest

from reid_tune.journal.state import RunState, SweepState, trial_run
from reid_tune.report.charts import confirm_chart, curves_chart, front_chart, history_chart, scatter_chart
from reid_tune.report.svg import COLOURS
from reid_tune.search.parameters import SearchedParameter

from ..helpers.events import sweep_header
from ..helpers.report_events import CONFIRM

STATES = ("finished", "finished", "stopped", "failed", "running")


def state_of(values: list[Any]) -> SweepState:
    """Trials of all states, the second the best; the first has no parameters."""
    state = SweepState(sweep_header())
    for number, value in enumerate(values):
        run = RunState(trial_run(number), {"k": value} if number else {}, state=STATES[number % 5])
        run.epochs = {1: {"mAP": 0.1}, 2: {"mAP": 0.2 + 0.1 * (number == 1)}}
        state.runs[run.name] = run
    return state


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize(
    ("entry", "values", "labels"),
    [
        ({"uniform": [0, 1]}, [0.5, 0.25, 0.125, 1.0], ["k"]),
        ({"loguniform": [1e-4, 1e-2]}, [1e-3, 1e-4, 1e-2], ["0.0003", "0.001", "0.003", "k (log)"]),
        ({"logint": [1, 100]}, [10, 1, 100], ["1", "10", "100", "k (log)"]),
        ({"loguniform": [1e-4, 1e-2]}, [0.0, 1e-4, 1e-2], ["0.001", "k (log)"]),
        ({"int": [1, 3]}, [None, 1, 2, 3], ["1", "2", "3", "k"]),
        ({"choice": [None, 16, 256]}, [None, 16, 256], ["null", "16", "256", "k"]),
        ({"choice": ["$a$", "<b>"]}, ["$a$", "<b>"], ["$a$", "&lt;b&gt;", "k"]),
        ({"list": [{"int": [1, 90]}, {"value": 90}]}, [[number, 90] for number in range(30)], ["[0, 90]", "k"]),
        ([{"choice": ["a"], "when": {"x": 1}}, {"uniform": [0, 1]}], ["a", 0.5], ["a", "0.5", "k"]),
    ],
)
def test_parameters_of_every_kind(entry: Any, values: list[Any], labels: list[str]) -> None:
    svg = scatter_chart(SearchedParameter("k", entry, values[0]), state_of(values), "mAP")
    assert set(labels) <= set(texts(svg)) and "mAP %" in texts(svg)
    assert svg.startswith("<svg viewBox=") and svg.rstrip().endswith("</svg>")


def test_all_colours_are_the_pages() -> None:
    state = state_of([1.0] * 10)
    for svg in (history_chart(state, "mAP"), curves_chart(state, "mAP", [1])):
        assert not set(COLOURS.values()) & set(re.findall(r"#[0-9a-f]{6}", svg))
        assert {"var(--ink)", "var(--blue)", "var(--faint)"} <= set(re.findall(r"var\(--\w+\)", svg))


def test_the_legend_names_the_best_and_trial_0() -> None:
    drawn = texts(curves_chart(state_of([1.0] * 8), "mAP", []))
    assert [text for text in drawn if text.startswith("trial")] == ["trial 1", "trial 5", "trial 6", "trial 0"]


def test_the_front_is_drawn_over_the_first_cost() -> None:
    state = state_of([1.0] * 12)
    state.header.sweep["objective"] = [{"metric": "mAP"}, {"metric": "parameters"}]
    for trial in state.trials:
        trial.costs["parameters"] = 1e6 * (trial.number + 1)
    two, one = (front_chart(state, state.trials[:count]) for count in (2, 1))
    assert {"parameters, millions", "mAP %"} <= set(texts(two)) and "var(--green)" in two
    assert sorted(texts(two)) == sorted([*texts(one), "1"]), "the trials of the front have their numbers"


def test_the_winner_s_curve_is_the_first() -> None:
    state = state_of([1.0] * 12)
    state.stages["confirm"] = {"winner": 5}
    assert [text for text in texts(curves_chart(state, "mAP", [])) if text.startswith("trial")][0] == "trial 5"


def test_the_compared_trials_stand_side_by_side_and_the_winner_is_named() -> None:
    svg = confirm_chart(CONFIRM, "mAP")
    assert [text for text in texts(svg) if text in ("2", "0 (spec)")] == ["2", "0 (spec)"]
    assert {"winner", "repeat 1", "repeat 2", "50.0", "37.5", "mAP %"} <= set(texts(svg))
    assert {"var(--orange)", "var(--ink)", "var(--blue)"} <= set(re.findall(r"var\(--\w+\)", svg))
