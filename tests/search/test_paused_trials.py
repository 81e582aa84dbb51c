from types import SimpleNamespace
from typing import Any

from reid_tune.journal.state import RunState, SweepState, trial_run
from reid_tune.search.asha import Asha
from reid_tune.search.paused_trials import PausedTrials
from reid_tune.search.promotion import Promotion

from ..helpers.events import sweep_header


def trial(number: int, epoch: int, score: float = 0.5, limit: str = "", state: str = "paused") -> RunState:
    epochs: dict[int, dict[str, Any]] = {epoch: {"mAP": score}} if epoch else {}
    return RunState(trial_run(number), {}, state=state, limit=limit, epochs=epochs)


def paused(
    *trials: RunState, asha: Asha | Promotion | None = None, limit: str | None = None, keep: int = 8, target: Any = None
) -> PausedTrials:
    state = SweepState(sweep_header(), {run.name: run for run in trials})
    tracker: Any = SimpleNamespace(continuation_limit=lambda _: limit)
    return PausedTrials(state, asha or Asha((1,), 3), keep, tracker, target or {})


def test_trials_that_the_budget_paused_continue_by_epochs_and_score() -> None:
    trials = [trial(1, 2, 0.9, "hours"), trial(2, 3, 0.1, "hours"), trial(3, 3, 0.2, "hours"), trial(4, 0, 0, "hours")]
    assert paused(*trials).next_run() == "trials/0003"
    assert [run.number for run in paused(*trials, keep=2).surplus()] == [1, 4]
    assert paused(*trials, limit="hours").next_run() is None
    assert paused(*trials, limit="hours").forbidding_limit() == "hours"
    assert paused(trial(1, 2, state="running")).forbidding_limit() is None


def test_nothing_continues_after_the_target() -> None:
    full = trial(1, 6, 0.9, state="finished")
    assert paused(full, trial(2, 2, 0.1, "hours"), target={"mAP": 0.8}).next_run() is None
    assert paused(full, trial(2, 2, 0.1, "hours"), target={"mAP": 0.95}).next_run() == "trials/0002"


def test_trials_at_rungs_continue_only_by_promotion_and_after_those_of_the_budget() -> None:
    asha = Promotion((1,), 3)
    trials = [trial(number, 1, 0.1 * number) for number in (1, 2, 3)]
    for run in trials:
        asha.should_continue(run.name, 1, run.epochs[1]["mAP"])
    assert paused(*trials, asha=asha).next_run() == "trials/0003"
    assert paused(*trials, trial(4, 5, 0.0, "hours"), asha=asha).next_run() == "trials/0004"
    assert paused(*trials[:2], asha=asha).next_run() is None
    with_budget = paused(*trials, trial(4, 5, 0.0, "hours"), asha=asha, keep=2)
    assert [run.number for run in with_budget.surplus()] == [2, 1]
