from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.journal.events import RunEnded, RunSuggested, StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.stages import STAGES
from reid_tune.journal.state import SweepState
from reid_tune.search.asha import Rungs
from reid_tune.sweep.resume import (
    load_resumable_state,
    record_driver_start,
    record_space_change,
    reopen_stages,
    space_changes,
    stages_to_redo,
    unsearched_space,
)
from reid_tune.sweep.stages.search import TrialSource

from ..helpers.events import sweep_header
from ..helpers.simulated_driver import SPACE, drive, make_sweep, outcome
from ..helpers.simulated_search import searched

pytestmark = pytest.mark.usefixtures("no_fsync")

NAME, RATE = "train.optim.name", "train.optim.base_lr"


def finished(folder: Path, ended_by: str = "trials", **values: Any) -> SweepState:
    """A sweep of two trials, a repeat that failed and refits, all stages done; what the resume reads."""
    sweep = make_sweep(folder, **values)
    with Journal(sweep.folder) as journal:
        content = {"sweep": sweep.file.model_dump(mode="json"), "spec": sweep.experiment.parameters()}
        journal.emit(sweep_header(name="simulated", uid="uid", lock=None, tracking_uri="", **content))
        for run, state in {
            "trials/0000": "finished",
            "trials/0001": "stopped",
            "confirm/0000-1": "finished",
            "confirm/0000-2": "failed",
            "refit/winner": "finished",
        }.items():
            journal.emit(RunSuggested(run=run, parameters={}))
            (sweep.folder / run).mkdir(parents=True)
            journal.emit(RunEnded(run=run, state=state, epoch=1))
        for stage in STAGES:
            result = {"ended_by": ended_by, "budget": sweep.file.budget.model_dump(mode="json")}
            journal.emit(StageDone(stage=stage, result=result if stage == "search" else {}))
    return load_resumable_state(sweep, "auto")


TWO = {"budget": {"trials": 2}}


def test_the_same_sweep_has_nothing_to_do_again(tmp_path: Path) -> None:
    state = finished(tmp_path, **TWO)
    assert stages_to_redo(make_sweep(tmp_path, **TWO), state, None) == ()


@pytest.mark.parametrize(
    ("ended_by", "before", "now", "continues"),
    [
        ("trials", {"trials": 2}, {"trials": 3}, True),
        ("trials", {"trials": 2}, {"trials": 2, "hours": 5}, False),
        ("hours", {"trials": 9, "hours": 1}, {"trials": 9, "hours": 2}, True),
        ("hours", {"trials": 9, "hours": 1}, {"trials": 9}, True),
        ("hours", {"trials": 9, "hours": 1}, {"trials": 12, "hours": 1}, False),
        ("patience", {"trials": 9, "patience": 1}, {"trials": 9, "patience": 5}, True),
        ("patience", {"trials": 9, "patience": 1}, {"trials": 9, "patience": {"min_gain": 0.3}}, True),
        ("min_gain", {"trials": 9, "patience": {"min_gain": 0.3}}, {"trials": 9, "patience": {"min_gain": 0.2}}, True),
        ("min_gain", {"trials": 9, "patience": {"min_gain": 0.3}}, {"trials": 9, "patience": 5}, True),
        ("min_gain", {"trials": 9, "patience": {"min_gain": 0.3}}, {"trials": 8, "patience": {"min_gain": 0.3}}, False),
    ],
)
def test_a_larger_budget_continues_the_search_that_it_ended(
    tmp_path: Path, ended_by: str, before: dict[str, Any], now: dict[str, Any], continues: bool
) -> None:
    state = finished(tmp_path, ended_by, budget=before)
    assert stages_to_redo(make_sweep(tmp_path, budget=now), state, None) == (STAGES[1:] if continues else ())


@pytest.mark.parametrize(("now", "stages"), [(2, STAGES[2:]), (1, ())])
def test_a_larger_budget_continues_the_repeats_that_it_ended(tmp_path: Path, now: float, stages: tuple[str]) -> None:
    state = finished(tmp_path, budget={"trials": 2, "hours": 1})
    state.stages["confirm"] = {"ended_by": "hours", "budget": {"trials": 2, "hours": 1}}
    assert stages_to_redo(make_sweep(tmp_path, budget={"trials": 2, "hours": now}), state, None) == stages


def test_from_a_stage_on_all_is_done_again(tmp_path: Path) -> None:
    sweep, state = make_sweep(tmp_path, **TWO), finished(tmp_path, **TWO)
    assert stages_to_redo(sweep, state, "refit") == ("refit", "export", "test", "register")
    del state.stages["confirm"]
    with pytest.raises(InputError, match="--from refit: the stage confirm of simulated is not done"):
        stages_to_redo(sweep, state, "refit")


@pytest.mark.parametrize(
    ("start", "gone"),
    [("test", set()), ("refit", {"refit/winner"}), ("confirm", {"refit/winner", "confirm/0000-2"})],
)
def test_what_is_done_again_is_forgotten_and_the_rest_stays(tmp_path: Path, start: str, gone: set[str]) -> None:
    sweep, state = make_sweep(tmp_path, **TWO), finished(tmp_path, **TWO)
    with Journal(sweep.folder) as journal:
        reopen_stages(journal, stages_to_redo(sweep, state, start))
    with Journal(sweep.folder) as journal:
        assert list(journal.state.stages) == list(STAGES[: STAGES.index(start)])
        assert state.runs.keys() - journal.state.runs.keys() == gone
    assert {run for run in state.runs if not (sweep.folder / run).exists()} == gone


NEW_KEY = {"train.optim.weight_decay": {"loguniform": [1e-5, 1e-2]}}
WIDER: dict[str, Any] = SPACE | {RATE: {"loguniform": [1e-5, 1e-1]}, NAME: {"choice": ["Adam", "AdamW", "SGD"]}}


def test_another_space_is_refused_key_by_key(tmp_path: Path) -> None:
    finished(tmp_path, **TWO)
    log = (tmp_path / "runs" / "simulated" / "events.jsonl").read_bytes()
    other = make_sweep(tmp_path, space=WIDER | NEW_KEY, **TWO)
    with pytest.raises(InputError) as error:
        load_resumable_state(other, "auto")
    message = str(error.value)
    assert message.startswith("the space of the sweep simulated in ") and "\n" not in message
    assert f"{RATE}: {{'loguniform': [0.0001, 0.01]}} there, {{'loguniform': [1e-05, 0.1]}} now" in message
    assert "train.optim.weight_decay: nothing there, {'loguniform': [1e-05, 0.01]} now" in message
    assert message.endswith("add --accept-space to continue with the new space, or give the file that it began with.")
    assert (tmp_path / "runs" / "simulated" / "events.jsonl").read_bytes() == log
    assert load_resumable_state(other, "auto", accept_space=True).header.sweep["space"] == SPACE
    with pytest.raises(InputError, match="exists in"):
        load_resumable_state(other, "never", accept_space=True)


def test_a_key_that_is_gone_makes_another_sweep(tmp_path: Path) -> None:
    finished(tmp_path, **TWO)
    other = make_sweep(tmp_path, space={key: entry for key, entry in SPACE.items() if key != RATE}, **TWO)
    with pytest.raises(InputError, match=rf"is another one \(space\.{RATE}: searched there, not now\)"):
        load_resumable_state(other, "auto", accept_space=True)


@pytest.mark.parametrize(
    ("ended_by", "patience"), [("space", None), ("patience", 1), ("min_gain", {"min_gain": 0.3}), ("trials", None)]
)
def test_a_search_that_its_space_ended_continues_in_another_one(tmp_path: Path, ended_by: str, patience: Any) -> None:
    budget = {"budget": {"trials": 2, "patience": patience}}
    state = finished(tmp_path, ended_by=ended_by, **budget)
    assert stages_to_redo(make_sweep(tmp_path, **budget), state, None) == ()
    wider = make_sweep(tmp_path, space=WIDER, **budget)
    redone = stages_to_redo(wider, state, None)
    sentence = "the space has changed, but the search has ended (trials) and does not continue: raise budget.trials"
    if ended_by == "trials":
        assert redone == () and unsearched_space(wider, state, redone) == f"{sentence} to search it."
    else:
        assert redone == STAGES[1:] and unsearched_space(wider, state, redone) == ""
    with Journal(wider.folder) as journal:
        record_space_change(wider, journal, {"/b.pth": "2"})
        assert space_changes(wider, journal.state), "it is not recorded while the search has ended"
        reopen_stages(journal, STAGES[1:])
        record_space_change(wider, journal, {"/b.pth": "2"})
        assert not space_changes(wider, journal.state)
        assert journal.state.stages["preflight"]["pretrained"] == {"/b.pth": "2"}


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
def test_a_search_continues_in_an_accepted_space(tmp_path: Path, sampler: str) -> None:
    settings = {"search": {"sampler": sampler, "seed": 1}, "scheduler": {"name": "none"}}
    _, journal = searched(make_sweep(tmp_path / "a", budget={"trials": 8}, **settings), tmp_path / "sweep")
    earlier = outcome(journal)
    journal.__exit__(None, None, None)
    now = make_sweep(tmp_path / "b", space=WIDER | NEW_KEY, budget={"trials": 14}, **settings)
    with Journal(tmp_path / "sweep") as journal:
        record_driver_start(now, journal, {})
        record_space_change(now, journal, {})
        assert journal.state.header.sweep["space"] == WIDER | NEW_KEY
        drive(TrialSource(now, journal, Rungs()))
        found = outcome(journal)
    assert found[:8] == earlier and len(found) == 14
    assert all(set(parameters) == set(WIDER | NEW_KEY) for _, _, _, parameters, _ in found[8:])
    # A driver that dies after any event of the new space leads to the same search.
    lines = (tmp_path / "sweep" / "events.jsonl").read_bytes().splitlines(keepends=True)
    change = next(index for index, line in enumerate(lines) if b'"kind":"space"' in line)
    for end in (change + 1, change + 20):
        folder = tmp_path / f"cut-{end}"
        folder.mkdir()
        (folder / "events.jsonl").write_bytes(b"".join(lines[:end]))
        with Journal(folder) as journal:
            record_driver_start(now, journal, {})
            record_space_change(now, journal, {})
            drive(TrialSource(now, journal, Rungs()))
            assert outcome(journal) == found
        content = (folder / "events.jsonl").read_bytes()
        assert content.count(b'"kind":"space"') == 1


@pytest.mark.parametrize("values", [{"resources": {"max_concurrent": 4}}, {"budget": {"trials": 40}}, {"keep": 9}])
def test_resources_and_budget_may_change(tmp_path: Path, values: dict[str, Any]) -> None:
    finished(tmp_path, **TWO)
    assert load_resumable_state(make_sweep(tmp_path, **TWO | values), "auto").header.name == "simulated"
