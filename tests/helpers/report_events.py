"""The events of a sweep, written by hand."""

from dataclasses import replace
from typing import Any

from reid_tune.journal.events import (
    EndState,
    EpochReported,
    Event,
    RunEnded,
    RunSuggested,
    StageDone,
    StageStarted,
)
from reid_tune.journal.state import trial_run

from .events import attempt_started, driver_started, sweep_header

RATE, STEPS = "train.optim.base_lr", "train.optim.lr_steps"
SCORE = {"mAP": 0.5, "mINP": 0.25, "Rank-1": 0.75, "Rank-5": 1.0, "Rank-10": 1.0, "queries": 12, "gallery": 40}
SEARCH = {"finished": 2, "ended_by": "hours", "budget": {"trials": 5, "hours": 3}}
GAIN = {"mean": 0.125, "low": 0.0625, "high": 0.1875, "repeats": 2}
LEVEL = {"mean": 0.0, "low": -0.125, "high": 0.125}
NOISE = {"mean": 0.01, "low": -0.01, "high": 0.03, "repeats": 2}
PLAN = {"rungs": [2], "hours": 0.1, "stages": {"confirm": {"runs": 4}, "refit": {"runs": 2}}}
CONFIRM = {
    "winner": 2,
    "selected": 2,
    "repeats": 2,
    "trials": [
        {"number": 0, "values": [0.25, 0.5], "mean": 0.375, "against_trial0": None},
        {"number": 2, "values": [0.375, 0.625], "mean": 0.5, "against_trial0": GAIN},
    ],
    "race": [{"number": 2, "values": [0.5]}, {"number": 1, "values": [0.25]}],
    "rounds": 1,
    "race_ended_by": None,
    "champion": None,
    "failed": [],
}
RERANK = {"settings": 36, "winner": {"setting": {"k1": 6, "k2": 3, "lambda_value": 0.25}, "plain": 0.5, "mAP": 0.625}}
RERANK["winner"]["gain"] = GAIN  # type: ignore[index]
LATENCY = {"device": "x", "threads": 1, "batches": {}}
TEST: dict[str, Any] = {
    "winner": {"plain": SCORE, "re_ranked": SCORE | {"mAP": 0.625}, "checkpoint": SCORE},
    "trial0": {"plain": SCORE},
}
TEST["winner"]["extra_tests"] = {"night": {"plain": SCORE | {"mAP": 0.125}}}
TEST["winner"]["against_trial0"] = {"plain": dict.fromkeys(("mAP", "mINP", "Rank-1"), LEVEL)}
REGISTERED = {"model": "m", "version": 2, "alias": "champion", "reason": "no other version had the alias"}


def compared(difference: dict[str, Any], winner: int = 2, **changes: Any) -> dict[str, Any]:
    """A result of `confirm` with another difference of trial 2 to trial 0."""
    baseline, selected = CONFIRM["trials"]  # type: ignore[misc]
    return CONFIRM | {"winner": winner, "trials": [baseline, selected | {"against_trial0": difference}]} | changes


def timed(models: dict[str, Any]) -> dict[str, Any]:
    return {name: model | {"latency": LATENCY} for name, model in models.items()}


def events(until: str = "register") -> list[Event]:
    """A sweep with trials 0 (full), 1 (failed), 2 (full, best), 3 (stopped), 4 (running)."""

    def report_of(number: int, epoch: int, value: float) -> Event:
        return EpochReported(run=trial_run(number), epoch=epoch, metrics={"loss": 1.0, "mAP": value})

    def ended(number: int, state: EndState, epoch: int, **reason: str) -> Event:
        return RunEnded(run=trial_run(number), state=state, epoch=epoch, **reason)

    sweep = {"objective": {"metric": "mAP", "mode": "max"}, "budget": {"trials": 5, "hours": 3}}
    made: list[Event] = [
        sweep_header(sweep=sweep, spec={RATE: 0.00035, STEPS: [40, 70]}),
        driver_started(pid=1),
        StageDone(stage="preflight", result=PLAN),
        StageStarted(stage="search"),
    ]
    for number, parameters in enumerate([{}, *({RATE: 0.001 * n, STEPS: [n]} for n in range(1, 5))]):
        made.append(RunSuggested(run=trial_run(number), parameters=parameters, origin="sampler"))
        made.append(attempt_started(run=trial_run(number)))
    made += [
        report_of(0, 1, 0.25),
        report_of(0, 2, 0.375),
        ended(0, "finished", 2),
        ended(1, "failed", 0, reason="the GPU is full", failure="out_of_memory"),
        report_of(2, 2, 0.5),
        ended(2, "finished", 2),
        report_of(3, 2, 0.125),
        ended(3, "stopped", 2, reason="below rung 2"),
        report_of(4, 1, 0.1875),
    ]
    if until == "register":
        made += [
            StageDone(stage="search", result=SEARCH),
            StageDone(stage="confirm", result=CONFIRM),
            StageDone(stage="rerank", result=RERANK),
            StageStarted(stage="refit"),
            RunSuggested(run="refit/winner", parameters={RATE: 0.002}),
            RunEnded(run="refit/winner", state="failed", epoch=0, reason="the disk"),
            StageDone(stage="refit", result={}),
            StageDone(stage="test", result={"models": timed(TEST), "test_evaluations": {"test folders": 1}}),
            StageDone(stage="register", result=REGISTERED),
        ]
    return [replace(event, time=100.0 + number) for number, event in enumerate(made)]
