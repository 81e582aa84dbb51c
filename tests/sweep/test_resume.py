from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.journal.events import RunEnded, RunSuggested, StageDone
from reid_tune.journal.journal import Journal
from reid_tune.journal.stages import STAGES
from reid_tune.journal.state import SweepState
from reid_tune.sweep.resume import load_resumable_state, reopen_stages, stages_to_redo

from ..helpers.events import sweep_header
from ..helpers.simulated_driver import SPACE, make_sweep

pytestmark = pytest.mark.usefixtures("no_fsync")

RATE = "train.optim.base_lr"


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


def test_another_space_is_refused_key_by_key(tmp_path: Path) -> None:
    finished(tmp_path, **TWO)
    other = make_sweep(tmp_path, space=SPACE | {RATE: {"loguniform": [1e-4, 1e-1]}}, **TWO)
    with pytest.raises(InputError, match=r"base_lr\.loguniform: \[0\.0001, 0\.01\] there"):
        load_resumable_state(other, "auto")


@pytest.mark.parametrize("values", [{"resources": {"max_concurrent": 4}}, {"budget": {"trials": 40}}, {"keep": 9}])
def test_resources_and_budget_may_change(tmp_path: Path, values: dict[str, Any]) -> None:
    finished(tmp_path, **TWO)
    assert load_resumable_state(make_sweep(tmp_path, **TWO | values), "auto").header.name == "simulated"
