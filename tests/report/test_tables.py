from dataclasses import replace
from pathlib import Path

from rich.table import Table

from reid_tune.journal.events import RunSuggested
from reid_tune.journal.journal import Journal
from reid_tune.journal.state import replay
from reid_tune.report.formatting import format_value
from reid_tune.report.html_tables import space_table
from reid_tune.report.reproduce import reproduce_command
from reid_tune.report.tables import confirm_table, finalist_table, leaderboard
from reid_tune.search.warm_start import parse_user_point
from reid_tune.search_space.recorded import load_recorded_sweep
from reid_tune.sweep.resume import make_header

from ..helpers.report_events import events
from ..helpers.simulated_driver import make_sweep


def rows(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_the_repeats_of_the_best() -> None:
    assert confirm_table(replay(events("search"))) is None
    table = confirm_table(replay(events()))
    assert table is not None and rows(table) == [
        ["2", "50.0", "37.5 62.5", "+12.5 (+6.2 .. +18.8)", "50.0"],
        ["0 (spec)", "37.5", "25.0 50.0", "", ""],
        ["1", "", "", "", "25.0"],
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


def test_a_bundle_has_a_column_and_its_fixed_values_have_none(tmp_path: Path) -> None:
    bundles = [
        {"name": "small", "model.backbone": "resnet18", "train.optim.base_lr": {"uniform": [0.001, 0.002]}},
        {"name": "large", "model.backbone": "resnet_50"},
    ]
    sweep = make_sweep(tmp_path, bundle=bundles, space={"model.pooling": {"choice": ["avg", "gem"]}})
    point = parse_user_point(sweep, {"bundle": "small", "train.optim.base_lr": 0.0015}, "enqueue")
    with Journal(sweep.folder) as journal:
        journal.emit(make_header(sweep))
        journal.emit(RunSuggested(run="trials/0000", parameters={}, origin="spec", costs={}))
        journal.emit(RunSuggested(run="trials/0001", parameters=point, origin="user", costs={}))
        state = journal.state
    table = leaderboard(state)
    assert [column.header for column in table.columns][4:] == ["bundle", "base_lr", "pooling"]
    assert sorted(row[4:] for row in rows(table)) == [["large", "0.00035", "avg"], ["small", "0.0015", "avg"]]
    assert [row[0] for row in space_table(state, None).rows][:2] == ["bundle", "model.backbone"]
    command = str(reproduce_command(state, state.runs["trials/0001"], sweep.folder / "spec.yaml"))
    assert "model.backbone=resnet18" in command and "bundle=" not in command
    assert load_recorded_sweep(sweep.folder).space == replace(sweep.space, source=str(sweep.folder))


def test_a_value_of_none_is_written_as_in_yaml() -> None:
    assert [format_value(value) for value in (None, 0.12345, 5, "SGD")] == ["null", "0.123", "5", "SGD"]
