import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from reid_tune.errors import InputError
from reid_tune.events.log import EventLog
from reid_tune.sweep.journal import EVENTS
from reid_tune.sweep.report.live import LiveView, status_line
from reid_tune.sweep.report.summary import finals_table, leaderboard, load_state, report
from reid_tune.sweep.state import SweepState, replay

RATE, STEPS = "train.optim.base_lr", "train.optim.lr_steps"
SCORE = {"mAP": 0.5, "mINP": 0.25, "Rank-1": 0.75, "Rank-5": 1.0, "Rank-10": 1.0, "queries": 12, "gallery": 40}
TEST = {
    "winner": {"plain": SCORE, "re_ranked": SCORE | {"mAP": 0.625}, "checkpoint": SCORE},
    "trial0": {"plain": SCORE},
}
REGISTERED = {"model": "m", "version": 2, "alias": "champion"}


def events(until: str = "register") -> list[dict[str, Any]]:
    """A sweep with trials 0 (full), 1 (failed), 2 (full, best), 3 (stopped), 4 (running)."""

    def report_of(number: int, epoch: int, value: float) -> dict[str, Any]:
        metrics = {"loss": 1.0, "mAP": value}
        return {"kind": "report", "run": f"trials/{number:04d}", "epoch": epoch, "metrics": metrics}

    def ended(number: int, state: str, epoch: int, **more: str) -> dict[str, Any]:
        return {"kind": "ended", "run": f"trials/{number:04d}", "state": state, "epoch": epoch, **more}

    sweep = {"objective": {"metric": "mAP", "mode": "max"}, "budget": {"trials": 5}}
    spec = {RATE: 0.00035, STEPS: [40, 70]}
    made: list[dict[str, Any]] = [
        {"kind": "sweep", "name": "s", "uid": "u", "sweep": sweep, "spec": spec},
        {"kind": "driver", "pid": 1},
        {"kind": "stage", "stage": "search", "state": "begun", "result": {}},
    ]
    for number, parameters in enumerate([{}, *({RATE: 0.001 * n, STEPS: [n]} for n in range(1, 5))]):
        made.append({"kind": "suggested", "run": f"trials/{number:04d}", "parameters": parameters})
        made.append({"kind": "attempt", "run": f"trials/{number:04d}", "attempt": 1})
    made += [
        report_of(0, 1, 0.25),
        report_of(0, 2, 0.375),
        ended(0, "finished", 2),
        ended(1, "failed", 0, reason="out of memory"),
        report_of(2, 2, 0.5),
        ended(2, "finished", 2),
        report_of(3, 2, 0.125),
        ended(3, "stopped", 2, reason="below rung 2"),
        report_of(4, 1, 0.1875),
    ]
    if until == "register":
        made += [
            {"kind": "stage", "stage": "search", "state": "done", "result": {"finished": 2}},
            {"kind": "stage", "stage": "refit", "state": "begun", "result": {}},
            {"kind": "suggested", "run": "refit/winner", "parameters": {RATE: 0.002}},
            {"kind": "ended", "run": "refit/winner", "state": "failed", "epoch": 0, "reason": "the disk"},
            {"kind": "stage", "stage": "refit", "state": "done", "result": {}},
            {"kind": "stage", "stage": "test", "state": "done", "result": TEST},
            {"kind": "stage", "stage": "register", "state": "done", "result": REGISTERED},
        ]
    return [{"time": 100.0 + number, **event} for number, event in enumerate(made)]


def rows(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_a_report_of_a_whole_sweep() -> None:
    found = report(replay(events()))
    assert list(found) == ["name", "trials", "winner", "trial0", "stages", "test", "registered"]
    assert found["trials"] == [
        {"number": 0, "state": "finished", "epoch": 2, "mAP": 0.375, "parameters": {}},
        {
            "number": 1,
            "state": "failed",
            "epoch": 0,
            "mAP": None,
            "parameters": {RATE: 0.001, STEPS: [1]},
            "reason": "out of memory",
        },
        {"number": 2, "state": "finished", "epoch": 2, "mAP": 0.5, "parameters": {RATE: 0.002, STEPS: [2]}},
        {
            "number": 3,
            "state": "stopped",
            "epoch": 2,
            "mAP": 0.125,
            "parameters": {RATE: 0.003, STEPS: [3]},
            "reason": "below rung 2",
        },
        {"number": 4, "state": "running", "epoch": 1, "mAP": 0.1875, "parameters": {RATE: 0.004, STEPS: [4]}},
    ]
    assert (found["name"], found["winner"], found["trial0"]) == ("s", 2, 0.375)
    assert found["stages"] == ["search", "refit", "test", "register"]
    assert (found["test"], found["registered"]) == (TEST, REGISTERED)
    json.dumps(found, allow_nan=False)


def test_a_report_does_not_depend_on_the_time() -> None:
    later = [event | {"time": event["time"] * 7} for event in events()]
    assert report(replay(later)) == report(replay(events()))


def test_a_report_of_a_sweep_that_has_just_begun() -> None:
    found = report(replay(events()[:3]))
    assert found["trials"] == [] and found["stages"] == []
    assert [found[key] for key in ("winner", "trial0", "test", "registered")] == [None] * 4


def test_the_leaderboard_has_the_best_first_and_full_length_before_the_rest() -> None:
    table = leaderboard(replay(events()))
    assert [column.header for column in table.columns] == ["trial", "state", "epoch", "mAP %", "base_lr", "lr_steps"]
    assert rows(table) == [
        ["2", "finished", "2", "50.0", "0.002", "[2]"],
        ["0 (spec)", "finished", "2", "37.5", "0.00035", "[40, 70]"],
        ["3", "stopped", "2", "12.5", "0.003", "[3]"],
        ["4", "running", "1", "18.8", "0.004", "[4]"],
        ["1", "failed", "0", "", "0.001", "[1]"],
    ]
    assert table.title == "s: mAP on the hold-out, 5 trials"
    assert [row.style for row in table.rows][:3] == ["bold green", "cyan", None]


def test_the_finals() -> None:
    table = finals_table(replay(events()))
    assert table is not None
    assert [row[:2] for row in rows(table)] == [
        ["winner (trial 2), ONNX", "50.0"],
        ["winner (trial 2), ONNX, re-ranked", "62.5"],
        ["winner (trial 2), checkpoint", "50.0"],
        ["trial 0, ONNX", "50.0"],
    ]
    assert finals_table(replay(events("search"))) is None


def write_log(path: Path, lines: list[dict[str, Any]]) -> None:
    with EventLog(path) as log:
        for event in lines:
            log.append(event["kind"], **{key: value for key, value in event.items() if key not in ("kind", "time")})


def test_a_state_by_name(tmp_path: Path) -> None:
    write_log(tmp_path / "one" / EVENTS, events())
    assert report(load_state("one", str(tmp_path))) == report(replay(events()))


def test_an_unknown_sweep_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"there is no sweep 'x' in {tmp_path}; sweeps there: none"):
        load_state("x", str(tmp_path))
    for name in ("b", "a"):
        write_log(tmp_path / name / EVENTS, events())
    with pytest.raises(InputError, match="sweeps there: a, b"):
        load_state("x", str(tmp_path))


def test_a_sweep_without_a_whole_event_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / EVENTS).write_text('{"kind":"swe')
    with pytest.raises(InputError, match="the sweep x has not begun"):
        load_state("x", str(tmp_path))


def test_the_status_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 100.0 + 90)
    state = replay(events("search"))
    assert status_line(state, "mAP", 9) == (
        "search: trials 5/9 (1 running, 2 finished, 1 stopped, 1 failed); mAP best 50.0 %, trial 0 37.5 %; 1.5 min"
    )
    assert status_line(replay(events()[:3]), "mAP", 9) == (
        "search: trials 0/9 (0 running, 0 finished, 0 stopped, 0 failed); mAP no full-length trial yet; 1.5 min"
    )
    assert status_line(replay(events()), "mAP", 9).startswith("done: trials 5/9")


def watch(console: Console, lines: list[dict[str, Any]]) -> None:
    state = SweepState()
    with LiveView(console, "mAP", 5) as view:
        for event in lines:
            state.apply(event)
            view(event, state)


def test_without_a_terminal_changes_are_lines() -> None:
    console = Console(file=io.StringIO(), width=20)
    watch(console, events())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "stage search",
        "trial 0 finished at epoch 2: mAP 37.5 %",
        "trial 1 failed at epoch 0 (out of memory)",
        "trial 2 finished at epoch 2: mAP 50.0 %",
        "trial 3 stopped at epoch 2: mAP 12.5 % (below rung 2)",
        "stage refit",
        "refit/winner: training on all identities",
        "refit/winner failed at epoch 0 (the disk)",
    ]


def test_in_a_terminal_the_table_stands_at_the_end() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=50)
    watch(console, events("search"))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "0 (spec)" in text and "mAP best 50.0 %, trial 0 37.5 %" in text


def test_what_looks_like_markup_is_printed_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=200)
    lines = [*events()[:5], {"kind": "ended", "time": 1.0, "run": "trials/0000", "state": "failed", "epoch": 0}]
    lines[-1]["reason"] = "cannot read [/a/b.jpg] of [bold]"
    watch(console, lines)
    assert isinstance(console.file, io.StringIO)
    assert "cannot read [/a/b.jpg] of [bold]" in console.file.getvalue()
