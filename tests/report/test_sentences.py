from pathlib import Path
from typing import Any

import pytest

from reid_tune.journal.costs import Cost
from reid_tune.journal.stages import Stage
from reid_tune.journal.state import replay
from reid_tune.report.formatting import format_spent
from reid_tune.report.plan_sentences import data_sentences, plan_sentences
from reid_tune.report.sentences import confirm_notes, report_sentences, search_end_sentence
from reid_tune.report.summary import SearchAnalysis
from reid_tune.report.test_set_sentences import difference_sentences, seed_sentences

from ..helpers.report_events import CONFIRM, GAIN, TEST, events

FOLDER = Path("runs/s")

FEW = (
    "With 2 repeats the interval reaches 12.7 standard errors to each side, with 5 it would be 2.8: only a large gain "
    "can be proven."
)
ONE_REFIT = "the intervals on the test folders cover the choice of identities only, for one refit of each model"


def test_all_that_a_whole_sweep_says() -> None:
    assert list(report_sentences(SearchAnalysis(replay(events())), FOLDER)) == [
        "the search ended because the budget of 3 hours would be exceeded, later stages included",
        "confirm: " + FEW,
        "re-ranking of the winner: k1 6, k2 3, lambda 0.25, the best of 36: +12.5 (+6.2 .. +18.8) mAP against plain, "
        "each validation split with the setting that the others choose",
        "winner minus trial 0 on the test folders, plain: mAP +0.0 (-12.5 .. +12.5), Rank-1 +0.0 (-12.5 .. +12.5)",
        ONE_REFIT + ": another seed may change more, and refit.seeds of 3 or more pools several refits",
        "test folders: this test set has been evaluated 1 time by this user on this machine or by sweeps in runs",
        "registered: models:/m@champion (version 2)",
        "model: runs/s/export/winner.onnx",
    ]


def test_a_sweep_that_has_just_begun_has_only_cost_something() -> None:
    assert list(report_sentences(SearchAnalysis(replay(events()[:4])), FOLDER)) == []
    assert format_spent(Cost(0.25, 0.125, 1.0)) == "0.25 hours, 0.12 GPU-hours"
    assert format_spent(Cost()) == "0.00 hours, 0.00 CPU-hours"
    assert format_spent(Cost(1, 2, 3, 0.5)) == "1.00 hours, 2.00 GPU-hours, runs waited 0.50 hours"


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ("trials", "the search ended because its budget of 5 trials is used up"),
        ("patience", "the search ended because 4 trials in a row brought no gain"),
        ("min_gain", "the search ended because a further trial was expected to gain less than 0.3 points"),
        ("gpu_hours", "the budget of 2 GPU-hours"),
        (None, ""),
    ],
)
def test_why_the_search_ended(end: str | None, sentence: str) -> None:
    state = replay(events())
    patience = {"min_gain": 0.3} if end == "min_gain" else 4
    budget = {"trials": 5, "hours": None, "gpu_hours": 2, "cpu_hours": None, "patience": patience}
    state.stages["search"] = {"ended_by": end, "budget": budget}
    assert sentence in search_end_sentence(state) and bool(sentence) == bool(search_end_sentence(state))


def test_several_refits_tell_what_a_seed_is_worth() -> None:
    state = replay(events())
    seeds: dict[str, Any] = {"mAP": {"values": [0.5, 0.25], "mean": 0.375, "deviation": 0.125}}
    state.stages["test"]["models"] = {"winner": TEST["winner"] | {"seeds": seeds}}
    assert seed_sentences(state) == ["2 refits of the winner by seed: mAP 37.5 %, standard deviation 12.5"]


def test_the_pooled_difference_of_several_refits_covers_seeds_too() -> None:
    state = replay(events())
    pooled = dict.fromkeys(("mAP", "mINP", "Rank-1"), GAIN | {"repeats": 3})
    state.stages["test"]["models"] = {"winner": TEST["winner"] | {"seeds_against_trial0": pooled}}
    assert list(difference_sentences(state))[1] == (
        f"{ONE_REFIT}; pooled over 3 refits of each with other seeds, winner minus trial 0, plain: mAP +12.5 "
        "(+6.2 .. +18.8), Rank-1 +12.5 (+6.2 .. +18.8), which covers seeds and identities"
    )


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, [FEW]),
        ({"repeats": 5}, []),
        ({"repeats": 1}, ["One repeat does not show how much trainings differ by chance: it has no interval."]),
        ({"repeats": 5, "failed": [0]}, ["Excluded because a repeat failed: trial 0."]),
        ({"ended_by": "hours"}, ["budget.hours = 3.5 does not reach for more repeats.", FEW]),
        (
            {"ended_by": "hours", "race_ended_by": "hours"},
            ["budget.hours = 3.5 ended the race of the candidates after 1 round.", FEW],
        ),
    ],
)
def test_what_limits_the_comparison_is_said(changes: dict[str, Any], notes: list[str]) -> None:
    assert confirm_notes(CONFIRM | {"budget": {"hours": 3.5}} | changes) == " ".join(notes)


def plan(**probe: float) -> dict[str, Any]:
    measured = {"steps": 20, "memory": 2e9, "gpu_memory": 0, "gpu_context": 0, "step_memory": 0, "largest_batch": 0}
    return {
        "probe": measured | probe,
        "timing": {"start": 3.0, "epoch": 5.0},
        "training_images": 1000,
        "data": {"train": {"files": 1003, "used": 1000, "left_out": {"name": 2, "system": 1}}},
        "training_identities": 50,
        "held_out_identities": 10,
        "pretrained": {},
        "cpus_per_run": 1,
        "gpus_per_run": 1,
        "max_concurrent": 2,
        "rungs": [],
        "rung_delay": 0.0,
        "initial_points": [],
        "learned": [],
        "folder": "runs/s",
        "warnings": [],
    }


def test_the_plan_names_the_origins_of_warm_starts() -> None:
    points = [{"origin": "other/3", "parameters": {}}, {"origin": "points.yaml", "parameters": {}}]
    lines = list(plan_sentences(plan() | {"initial_points": points}))
    assert "warm starts, run right after trial 0: other/3, points.yaml" in lines


@pytest.mark.parametrize(
    ("until", "stages"),
    [("search", ""), ("rerank", "rerank"), ("refit", "rerank"), ("register", "rerank, export, test, register")],
)
def test_the_plan_names_the_stages_without_training_up_to_the_last_one(until: Stage, stages: str) -> None:
    lines = [line for line in plan_sentences(plan(), until) if "not in the table" in line]
    assert [line.split(": ")[1] for line in lines] == [stages] * bool(stages)


def test_the_plan_names_the_sweeps_that_it_learns_from() -> None:
    learned = [{"name": "other", "trials": [{"is_same": True}, {"is_same": False}, {"is_same": False}]}]
    lines = list(plan_sentences(plan() | {"learned": learned}))
    assert "learns from other: 3 trials, 1 of them with these data and spec" in lines


def test_the_plan_and_the_page_account_for_all_files() -> None:
    left_out = "left out: 3 of 1,003 files of train (2 whose names do not parse; 1 hidden or system file)"
    assert list(plan_sentences(plan()))[1] == left_out
    complete = {"train": {"files": 1000, "used": 1000, "left_out": {}}}
    assert not any("left out" in line for line in plan_sentences(plan() | {"data": complete}))
    assert list(data_sentences(plan()))[2:] == [
        "train: 1,003 files = 1,000 used + 2 whose names do not parse + 1 hidden or system file"
    ]
    assert list(data_sentences(plan() | {"data": complete}))[2:] == ["train: 1,000 files = 1,000 used"]


GPU = {"gpu_memory": 9e9, "step_memory": 6.5e9}


@pytest.mark.parametrize(
    ("probe", "memory", "batch"),
    [
        (
            GPU | {"largest_batch": 96},
            "9.0 GB of GPU memory",
            "peak of a step 6.5 GB; largest batch that fits, estimated from two batch sizes: 96",
        ),
        (
            GPU,
            "9.0 GB of GPU memory",
            "peak of a step 6.5 GB; the largest batch that fits is not estimated for this spec",
        ),
        ({"gpu_memory": 9e9}, "9.0 GB of GPU memory", "the largest batch that fits is not estimated for this spec"),
    ],
)
def test_the_plan_tells_the_memory_of_a_step_and_the_largest_batch(
    probe: dict[str, float], memory: str, batch: str
) -> None:
    lines = list(plan_sentences(plan(**probe)))
    (run,) = [line for line in lines if line.startswith("a run: ")]
    assert run.endswith(memory) and lines[lines.index(run) + 1] == batch


def test_without_a_gpu_the_plan_estimates_no_batch() -> None:
    lines = list(plan_sentences(plan()))
    assert any(line.endswith("2.0 GB of memory") for line in lines) and not any("batch" in line for line in lines)


def test_a_re_ranking_without_further_validation_splits_has_no_gain() -> None:
    state = replay(events())
    state.stages["rerank"]["winner"] = state.stages["rerank"]["winner"] | {"gain": None}
    lines = [line for line in report_sentences(SearchAnalysis(state), FOLDER) if line.startswith("re-ranking")]
    assert lines == [
        "re-ranking of the winner: k1 6, k2 3, lambda 0.25, the best of 36: its gain is not known, as no validation "
        "split is left that did not choose the setting"
    ]


@pytest.mark.parametrize(
    ("collapsed", "sentence"),
    [
        ({}, None),
        ({0: 2}, "warning: the embeddings of trial 0 had collapsed at the last validation"),
        ({0: 2, 2: 1, 3: 1}, "warning: the embeddings of trials 0, 2 and 3 had collapsed"),
        ({0: 1}, None),
    ],
)
def test_trials_whose_embeddings_collapsed_are_named(collapsed: dict[int, int], sentence: str | None) -> None:
    state = replay(events())
    for trial in state.trials:
        if number := collapsed.get(trial.number):
            epoch = sorted(trial.epochs)[number - 1]
            trial.epochs[epoch] = trial.epochs[epoch] | {"collapse": "the embeddings have collapsed"}
    lines = [line for line in report_sentences(SearchAnalysis(state), FOLDER) if line.startswith("warning")]
    assert [line.startswith(str(sentence)) for line in lines] == ([] if sentence is None else [True])


def test_doubtful_scores_of_the_test_set_are_told() -> None:
    state = replay(events())
    state.stages["test"]["models"]["winner"] |= {"plain": {"mAP": 0.5, "warnings": ["copies everywhere"]}}
    lines = list(report_sentences(SearchAnalysis(state), FOLDER))
    assert "warning: the winner on the test folders: copies everywhere" in lines
