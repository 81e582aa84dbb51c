from rich.table import Table

from reid_tune.journal.state import replay
from reid_tune.report.tables import confirm_table, finalist_table, leaderboard

from ..helpers.report_events import events


def rows(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_the_repeats_of_the_best() -> None:
    assert confirm_table(replay(events("search"))) is None
    table = confirm_table(replay(events()))
    assert table is not None and rows(table) == [
        ["2", "50.0", "37.5 62.5", "+12.5 (+6.2 .. +18.8)", ""],
        ["0 (spec)", "37.5", "25.0 50.0", "", "+12.5 (+6.2 .. +18.8)"],
    ]


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
    assert table.title == "s: mAP on the validation split, 5 trials"
    assert [row.style for row in table.rows][:3] == ["bold green", "cyan", None]
    few = leaderboard(replay(events()), 2)
    assert rows(few) == rows(table)[:2] and few.title == "s: mAP on the validation split, the best 2 of 5 trials"


def test_the_finalists() -> None:
    table = finalist_table(replay(events()))
    assert table is not None
    assert [row[:2] for row in rows(table)] == [
        ["winner (trial 2), ONNX", "50.0"],
        ["winner (trial 2), ONNX, re-ranked", "62.5"],
        ["winner (trial 2), checkpoint", "50.0"],
        ["winner (trial 2), ONNX, night", "12.5"],
        ["trial 0, ONNX", "50.0"],
    ]
    assert finalist_table(replay(events("search"))) is None
