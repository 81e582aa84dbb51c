import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.journal.costs import Cost
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.state import SweepState, replay
from reid_tune.journal.sweep_lookup import load_state
from reid_tune.report.summary import SearchAnalysis, build_report, winner_number

from ..helpers.events import write_events
from ..helpers.report_events import CONFIRM, LATENCY, RATE, REGISTERED, RERANK, STEPS, TEST, events


def report_of(state: SweepState, spent: Mapping[str, Cost] | None = None) -> dict[str, Any]:
    return build_report(SearchAnalysis(state), spent)


def trial(number: int, state: str, epoch: int, value: float | None, **more: str) -> dict[str, Any]:
    parameters = {RATE: 0.001 * number, STEPS: [number]} if number else {}
    content = {"number": number, "state": state, "epoch": epoch, "mAP": value, "costs": {}, "parameters": parameters}
    return content | {"origin": "sampler"} | more


def test_a_report_of_a_whole_sweep() -> None:
    content = report_of(replay(events()))
    assert content == {
        "name": "s",
        "trials": [
            trial(0, "finished", 2, 0.375),
            trial(1, "failed", 0, None, reason="the GPU is full", failure="out_of_memory"),
            trial(2, "finished", 2, 0.5),
            trial(3, "stopped", 2, 0.125, reason="below rung 2"),
            trial(4, "running", 1, 0.1875),
        ],
        "winner": 2,
        "trial0": 0.375,
        "forecast": None,
        "importances": None,
        "stages": ["preflight", "search", "confirm", "rerank", "refit", "test", "register"],
        "confirm": CONFIRM,
        "rerank": RERANK,
        "test": TEST,
        "test_evaluations": {"test folders": 1},
        "registered": REGISTERED,
        "latency": {"winner": LATENCY, "trial0": LATENCY},
    }
    assert [*map(len, content["trials"])] == [7, 9, 7, 8, 7]
    json.dumps(content, allow_nan=False)


def test_several_objectives_add_costs_and_the_front() -> None:
    state = replay(events())
    state.header.sweep["objective"] = [{"metric": "mAP"}, {"metric": "parameters"}, {"metric": "gflops"}]
    for trial in state.trials:
        trial.costs = {"parameters": 23.5e6, "gflops": 8.25}
    content = report_of(state)
    assert content["front"] == [2] and content["trials"][0]["parameters"] == {}
    assert content["trials"][0]["costs"] == {"parameters": 23.5e6, "gflops": 8.25}


def test_a_report_does_not_depend_on_the_time() -> None:
    later = [replace(event, time=event.time * 7) for event in events()]
    assert report_of(replay(later)) == report_of(replay(events()))


def test_what_was_spent_has_a_separate_key() -> None:
    state = replay(events())
    content = report_of(state, {"search": Cost(1.0, 0.5, 2.0)})
    assert content.pop("spent") == {"search": {"hours": 1.0, "gpu_hours": 0.5, "cpu_hours": 2.0, "waiting_hours": 0.0}}
    assert content == report_of(state)


def test_a_report_of_a_sweep_that_has_just_begun() -> None:
    content = report_of(replay(events()[:2]))
    assert content["trials"] == [] and content["stages"] == []
    assert {
        content[key] for key in ("winner", "trial0", "confirm", "rerank", "test", "test_evaluations", "registered")
    } == {None}


def test_confirm_decides_who_has_won() -> None:
    state = replay(events("search"))
    assert winner_number(state) == 2
    state = replay(events())
    state.stages["confirm"] = CONFIRM | {"winner": 0}
    assert winner_number(state) == 0 and report_of(state)["winner"] == 0


def test_a_state_by_name(tmp_path: Path) -> None:
    write_events(tmp_path / "one" / EVENTS, events())
    assert report_of(load_state("one", str(tmp_path))) == report_of(replay(events()))


def test_an_unknown_sweep_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"there is no sweep 'x' in {tmp_path}; sweeps there: none"):
        load_state("x", str(tmp_path))
    for name in ("b", "a"):
        write_events(tmp_path / name / EVENTS, events())
    with pytest.raises(InputError, match="sweeps there: a, b"):
        load_state("x", str(tmp_path))


def test_a_sweep_without_a_whole_event_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / EVENTS).write_text('{"kind":"swe')
    with pytest.raises(InputError, match="the sweep x has not started"):
        load_state("x", str(tmp_path))
