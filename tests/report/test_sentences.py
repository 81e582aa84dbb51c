from pathlib import Path
from typing import Any

import pytest

from reid_tune.journal.costs import Cost
from reid_tune.journal.state import replay
from reid_tune.report.sentences import format_spent, report_sentences, search_end_sentence, seed_sentences

from ..helpers.report_events import TEST, events

FOLDER = Path("runs/s")

FEW = " With confirm.seeds below 3 the interval does not show what a seed is worth."


def test_all_that_a_whole_sweep_says() -> None:
    assert list(report_sentences(replay(events()), FOLDER, Cost(0.5, 0.0, 1.0))) == [
        "the search ended as the budget of 3 hours would be spent, with what the later stages need",
        "Trial 2 has the best mean, and beats each other beyond noise." + FEW,
        "re-ranking of the winner: k1 6, k2 3, lambda 0.25, the best of 36: +12.5 (+6.2 .. +18.8) mAP against plain "
        "on the hold-outs",
        "winner minus trial 0 on the test folders, plain: mAP +0.0 (-12.5 .. +12.5), Rank-1 +0.0 (-12.5 .. +12.5)",
        "test folders: this test set has been looked at 1 time by sweeps in runs",
        "spent: 0.50 hours, 1.00 CPU-hours",
        "registered: models:/m@champion (version 2; no other version had the alias)",
        "model: runs/s/export/winner.onnx",
    ]


def test_a_sweep_that_has_just_begun_has_only_cost_something() -> None:
    assert list(report_sentences(replay(events()[:4]), FOLDER, Cost(0.25, 0.125, 1.0))) == [
        "spent: 0.25 hours, 0.12 GPU-hours"
    ]
    assert format_spent(Cost()) == "0.00 hours, 0.00 CPU-hours"


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ("trials", "the search ended as its budget of 5 trials is used up"),
        ("patience", "the search ended as 4 trials in a row brought no gain"),
        ("gpu_hours", "the budget of 2 GPU-hours"),
        (None, ""),
    ],
)
def test_why_the_search_ended(end: str | None, sentence: str) -> None:
    state = replay(events())
    budget = {"trials": 5, "hours": None, "gpu_hours": 2, "cpu_hours": None, "patience": 4}
    state.stages["search"] = {"ended_by": end, "budget": budget}
    assert sentence in search_end_sentence(state) and bool(sentence) == bool(search_end_sentence(state))


def test_several_refits_tell_what_a_seed_is_worth() -> None:
    state = replay(events())
    seeds: dict[str, Any] = {"mAP": {"values": [0.5, 0.25], "mean": 0.375, "deviation": 0.125}}
    state.stages["test"]["models"] = {"winner": TEST["winner"] | {"seeds": seeds}}
    assert seed_sentences(state) == ["2 refits of the winner by seed: mAP 37.5 %, standard deviation 12.5"]
