import re

import pytest

from reid_tune.tables import format_percent, metrics_table, print_metrics


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "12.3"), (1.0, "100.0"), (0.0, "0.0"), (12, "12"), ("", ""), (None, "None")]
)
def test_percent(value: object, text: str) -> None:
    assert format_percent(value) == text


def test_a_table_of_unlike_rows_leaves_gaps() -> None:
    table = metrics_table({"plain": {"mAP": 0.5, "queries": 3}, "re-ranked": {"mAP": 0.25, "mINP": 0.125}})
    assert [column.header for column in table.columns] == ["", "mAP %", "queries", "mINP %"]
    assert [list(column.cells) for column in table.columns] == [
        ["plain", "re-ranked"],
        ["50.0", "25.0"],
        ["3", ""],
        ["", "12.5"],
    ]


def test_intervals_follow_their_metric_and_texts_have_no_column() -> None:
    metrics = {"mAP": 0.857, "queries": 3, "intervals": {"mAP": [0.841, 0.8723]}, "protocol": "words"}
    table = metrics_table({"plain": metrics, "other": {"mAP": 0.5, "queries": 4}})
    assert [column.header for column in table.columns] == ["", "mAP %", "queries"]
    assert [list(column.cells) for column in table.columns[1:]] == [["85.7 (84.1-87.2)", "50.0"], ["3", "4"]]


def test_rows_are_printed_whole_where_no_terminal_limits_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    print_metrics({"a label of the model": {f"metric-{number}": 0.5 for number in range(10)}})
    out, err = capsys.readouterr()
    assert err == ""
    (row,) = [line for line in out.splitlines() if "50.0" in line]
    assert "a label of the model" in row and row.count("50.0") == 10


@pytest.mark.parametrize(
    ("width", "terminal", "upright"), [(200, "xterm", False), (60, "xterm", True), (80, "dumb", True)]
)
def test_a_narrow_terminal_gets_the_table_upright_and_whole(
    width: int, terminal: str, upright: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", terminal)
    names = ["mAP", "mINP", "Rank-1", "Rank-5", "Rank-10"]
    metrics = {name: 0.1 + number / 1000 for number, name in enumerate(names)}
    print_metrics({"plain": metrics | {"intervals": {name: [0.0123, 0.987] for name in names}}})
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in out and max(map(len, out.splitlines())) <= width
    cells = [f"{10 + number / 10:.1f} (1.2-98.7)" for number in range(5)]
    assert [sum(cell in line for cell in cells) for line in out.splitlines() if "98.7" in line] == (
        [1] * 5 if upright else [5]
    )
