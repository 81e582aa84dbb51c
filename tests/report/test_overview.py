import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from reid_tune.errors import InputError
from reid_tune.journal.progress import read_sweep
from reid_tune.report.overview import list_sweeps, sweeps_table

from ..helpers.finished_sweep import simulate

pytestmark = pytest.mark.usefixtures("no_fsync")


def shown(storage: Path, now: float) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(sweeps_table(list_sweeps(storage), now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_folders_of_a_storage_are_lines(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name, until in (("a", "register"), ("b", "search"), ("c", "")):
        simulate(tmp_path / name, trials=5, until=until).folder.rename(tmp_path / "runs" / name)
    (tmp_path / "runs" / "foreign [bold]").mkdir()
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "events.jsonl").write_text("no JSON\n")
    (tmp_path / "runs" / "a file").write_text("")
    lines = {line["name"]: line for line in list_sweeps(tmp_path / "runs")}
    assert list(lines) == ["a", "b", "broken", "c", "foreign [bold]"]
    states = [(line["state"], line.get("stage")) for line in lines.values()]
    assert states == [
        ("finished", "register"),
        ("ended", "search"),
        ("unreadable", None),
        ("interrupted", ""),
        ("unreadable", None),
    ]
    state, progress = read_sweep(tmp_path / "runs" / "a")
    best = state.finished()[0].last("mAP")
    assert (lines["a"]["trials"], lines["a"]["budget"], lines["a"]["metric"]) == (5, 5, "mAP")
    assert (lines["a"]["best"], lines["a"]["trial0"]) == (best, state.trials[0].last("mAP"))
    assert (lines["c"]["trials"], lines["c"]["best"], lines["c"]["trial0"]) == (0, None, None)
    assert (lines["a"]["begun"], lines["a"]["last"]) == (state.header.time, progress.last)
    assert "The log is damaged" in lines["broken"]["problem"]
    json.dumps(list(lines.values()), allow_nan=False)

    text = shown(tmp_path / "runs", progress.last + 7200)
    assert "foreign [bold]" in text and "holds no sweep" in text
    row = next(line for line in text.splitlines() if line.startswith("│ a "))
    assert f"{100 * best:.1f}" in row and "5/5" in row and "2 h 0 min ago" in row  # type: ignore[operator]
    assert "interrupted at the start" in text and "ended after search" in text


def test_a_storage_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder .*gone does not exist: start a sweep"):
        list_sweeps(tmp_path / "gone")
    assert list_sweeps(tmp_path) == []
