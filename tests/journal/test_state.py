import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_tune.errors import InputError
from reid_tune.journal.journal import EVENTS, Journal
from reid_tune.journal.state import SweepState, replay, trial_run

RUNS = ["trials/0000", "trials/0001", "trials/0002", "refit/winner"]


def random_history(seed: int, length: int) -> list[tuple[str, dict[str, Any]]]:
    """Any order of events that names only runs which were suggested."""
    choose = random.Random(seed)
    history: list[tuple[str, dict[str, Any]]] = [("sweep", {"name": "s", "spec": {"a": (1, 2)}, "sweep": {}})]
    known: list[str] = []
    for _ in range(length):
        kind = choose.choice(["suggested", "attempt", "report", "report", "ended", "stage", "driver", "artifact"])
        run = choose.choice(known or RUNS[:1])
        if kind == "suggested" or (not known and kind in ("attempt", "report", "ended")):
            run = choose.choice(RUNS)
            known.append(run)
            history.append(("suggested", {"run": run, "parameters": {"lr": choose.random(), "steps": [1, 2]}}))
        elif kind == "attempt":
            history.append((kind, {"run": run, "attempt": choose.randint(1, 3)}))
        elif kind == "report":
            metrics = {"loss": choose.random()} | ({"mAP": choose.random()} if choose.random() < 0.5 else {})
            history.append((kind, {"run": run, "epoch": choose.randint(1, 9), "metrics": metrics}))
        elif kind == "ended":
            reason = {"reason": "why"} if choose.random() < 0.5 else {}
            history.append((kind, {"run": run, "state": choose.choice(["finished", "stopped", "failed"]), **reason}))
        elif kind == "stage":
            fields = {"stage": choose.choice(["search", "refit"]), "state": choose.choice(["started", "done"])}
            history.append((kind, {**fields, "result": {"rungs": (1, 3)}}))
        else:
            history.append((kind, {"run": run}))
    return history


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), length=st.integers(0, 40))
def test_a_replay_is_the_live_state(tmp_path_factory: pytest.TempPathFactory, seed: int, length: int) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        with Journal(folder) as journal:
            for kind, fields in random_history(seed, length):
                journal.emit(kind, **fields)
    with Journal(folder) as again:
        assert again.state == journal.state
        assert len(again.past) == length + 1


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time": 5.0, **fields}


def test_a_state_by_hand() -> None:
    state = replay(
        [
            event("sweep", name="s"),
            event("stage", stage="search", state="started", result={}),
            event("suggested", run="trials/0000", parameters={}),
            event("attempt", run="trials/0000", attempt=1),
            event("report", run="trials/0000", epoch=1, metrics={"mAP": 0.1}),
            event("report", run="trials/0000", epoch=2, metrics={"loss": 1.0}),
            event("suggested", run="trials/0001", parameters={"lr": 1}),
            event("ended", run="trials/0000", state="failed", epoch=2, reason="why"),
            event("suggested", run="refit/winner", parameters={}),
            event("stage", stage="search", state="done", result={"finished": 0}),
            event("something new"),
        ]
    )
    first, second = state.trials
    assert (first.number, first.state, first.reason, first.epoch, first.attempts) == (0, "failed", "why", 2, 1)
    assert (first.last("mAP"), first.last("loss"), first.last("mINP")) == (0.1, 1.0, None)
    assert (second.state, second.epoch, second.parameters, second.last("mAP")) == ("running", 0, {"lr": 1}, None)
    assert state.stages == {"search": {"finished": 0}} and state.stage_starts == {"search": 5.0}
    assert state.header["name"] == "s"


def test_full_length_trials_are_ordered_by_value_and_then_by_number() -> None:
    state = SweepState({"sweep": {"objective": {"metric": "mAP"}}})
    for number, (ended, value) in enumerate(
        [("finished", 0.2), ("stopped", 0.9), ("finished", 0.3), ("finished", 0.3), ("failed", 0.8), ("finished", None)]
    ):
        state.apply(event("suggested", run=trial_run(number), parameters={}))
        state.apply(event("report", run=trial_run(number), epoch=1, metrics={} if value is None else {"mAP": value}))
        state.apply(event("ended", run=trial_run(number), state=ended, epoch=1))
    assert [trial.number for trial in state.finished()] == [2, 3, 0]


def test_a_torn_line_is_dropped_and_the_log_goes_on(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.emit("suggested", run="trials/0000", parameters={})
        journal.emit("report", run="trials/0000", epoch=1, metrics={"mAP": 0.5})
    path = tmp_path / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with Journal(tmp_path) as journal:
        assert journal.state.runs["trials/0000"].epochs == {}
        journal.emit("report", run="trials/0000", epoch=1, metrics={"mAP": 0.25})
    with Journal(tmp_path) as journal:
        assert journal.state.runs["trials/0000"].epochs == {1: {"mAP": 0.25}}
        assert len(journal.past) == 2


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(InputError, match="in use by another running process"):
        Journal(tmp_path)


def test_listeners_see_the_state_behind_the_event(tmp_path: Path) -> None:
    seen: list[Any] = []
    with Journal(tmp_path) as journal:
        journal.listeners.append(lambda what, state: seen.append((what["kind"], list(state.runs), journal.path.stat())))
        journal.emit("suggested", run="trials/0000", parameters={})
    assert [(kind, runs) for kind, runs, _ in seen] == [("suggested", ["trials/0000"])]
    assert seen[0][2].st_size > 0
