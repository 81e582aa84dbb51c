from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.errors import InputError
from reid_tune.execution import stage_resources as crews
from reid_tune.execution.placement import Placement
from reid_tune.execution.run_source import ResourceRequest
from reid_tune.execution.stage_resources import StageResources, find_capacity, find_placement, resolve_stage_resources
from reid_tune.sweep import driver as drive

from ..helpers.simulated_driver import make_sweep

SHARE = Placement(2, 0.5, 3, (("disk", 1.0),))


def test_runs_hold_what_their_workers_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(tmp_path)
    monkeypatch.setattr(crews, "compute_placement", lambda *_: SHARE)
    crew = resolve_stage_resources(sweep, 2)
    assert (
        crew.per_run == ResourceRequest(4, 1, 2, SHARE.custom) and crew.max_concurrent == find_capacity(sweep, 2) == 3
    )
    assert find_placement(sweep, 2) == SHARE


def test_where_nodes_were_lost_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Placement:
        raise InputError("a run wants 8 CPU.")

    sweep = make_sweep(tmp_path)
    monkeypatch.setattr(crews, "compute_placement", refuse)
    assert find_capacity(sweep, 1) == 0 and find_placement(sweep, 1) is None
    with pytest.raises(InputError, match=r"sweep\.yaml: a run wants 8 CPU\."):
        resolve_stage_resources(sweep, 1)


def test_all_stages_that_score_may_hold_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Placement]] = []
    monkeypatch.setattr(drive, "find_placement", lambda *_: SHARE)
    monkeypatch.setattr(drive, "resolve_stage_resources", lambda *_: crews.StageResources(ResourceRequest(), 1))
    monkeypatch.setattr(drive, "confirm_sources", lambda *_: [])

    def score(name: str, _stage: Any, _sweep: Any, _journal: Any, placement: Placement) -> dict[str, Any]:
        calls.append((name, placement))
        return {"race_ended_by": None}

    monkeypatch.setattr(drive, "run_stage_on_gpu", score)
    driver: Any = drive.SweepDriver(make_sweep(tmp_path), Mock(), Mock(), {"warnings": []}, None, Mock())
    driver.journal, driver._run = SimpleNamespace(state=Mock(champion=None)), lambda *_: None
    driver._budget_tracker = Mock()
    scored = ("confirm", "rerank", "export", "test")
    for name in scored:
        driver.stages[name]()
    assert calls == [(name, SHARE) for name in scored]


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(1, 4))
def test_runs_begin_as_soon_as_there_is_room(seconds: list[int], at_once: int) -> None:
    now, waiting, at_work = 0, list(seconds), list[int]()
    while waiting or at_work:
        at_work = [left for left in at_work if left > 0]
        while waiting and len(at_work) < at_once:
            if (first := waiting.pop(0)) > 0:
                at_work.append(first)
        if at_work:
            now, at_work = now + 1, [left - 1 for left in at_work]
    cost = StageResources(ResourceRequest(3, 0.5), at_once).cost(seconds)
    assert (3600 * cost.hours, 3600 * cost.cpu_hours) == pytest.approx((now, 3 * sum(seconds)))
    assert 3600 * cost.gpu_hours == pytest.approx(sum(seconds) / 2)
