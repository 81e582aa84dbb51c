from types import SimpleNamespace
from typing import Any

from reid_tune.journal.state import RunState, SweepState, trial_run
from reid_tune.search.asha import Asha
from reid_tune.search.pruning import PruningRule


def tracker(limit: str | None) -> Any:
    return SimpleNamespace(exceeded_limit=lambda: limit)


def test_a_trial_below_its_rung_is_stopped_unless_it_is_trial_0() -> None:
    rule = PruningRule(Asha((1, 3), 3))
    assert rule.should_continue("trials/0001", 1, 0.5, ())
    assert rule.should_continue("trials/0000", 1, 0.1, ())
    assert not rule.should_continue("trials/0002", 1, 0.1, ())
    assert rule.should_continue("trials/0003", 1, None, ()), "an epoch without validation"
    assert rule.should_continue("trials/0003", 2, 0.1, ()), "an epoch between rungs"


def test_an_exceeded_budget_stops_all_trials_but_trial_0() -> None:
    state = SweepState(runs={trial_run(number): RunState(trial_run(number), {}) for number in range(3)})
    assert list(PruningRule(Asha((), 3), tracker("gpu_hours")).runs_over_budget(state)) == [
        ("trials/0001", "gpu_hours"),
        ("trials/0002", "gpu_hours"),
    ]
    assert list(PruningRule(Asha((), 3), tracker(None)).runs_over_budget(state)) == []
    assert list(PruningRule(Asha((), 3)).runs_over_budget(state)) == []
