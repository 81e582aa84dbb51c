"""Write access to a sweep."""

from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import StageStarted, to_line
from reid_tune.journal.journal import Journal

from ..helpers.events import sweep_header, write_events


def test_an_event_of_another_driver_ends_this_one(tmp_path: Path) -> None:
    """As after a heartbeat that was late, on a file system without locks: the state is no longer that of the log."""
    with Journal(tmp_path) as journal:
        journal.emit(sweep_header())
        journal.emit(StageStarted(stage="preflight"))
        write_events(tmp_path / EVENTS, [StageStarted(stage="search")])
        with pytest.raises(InfrastructureError, match=rf"another driver has written {tmp_path / EVENTS}: find it by"):
            journal.emit(StageStarted(stage="confirm"))
    assert [event.kind for event in read_events(tmp_path / EVENTS)] == ["sweep", "stage_started", "stage_started"]
    with Journal(tmp_path) as journal:
        journal.emit(StageStarted(stage="confirm"))
    assert len(read_events(tmp_path / EVENTS)) == 4


def test_a_torn_line_is_removed_by_the_first_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_events(tmp_path / EVENTS, [sweep_header()])
    with (tmp_path / EVENTS).open("ab") as log:
        log.write(to_line(StageStarted(stage="preflight"))[:30])
    with Journal(tmp_path) as journal:
        journal.emit(StageStarted(stage="search"))
        journal.emit(StageStarted(stage="confirm"))
    assert [getattr(event, "stage", "") for event in read_events(tmp_path / EVENTS)] == ["", "search", "confirm"]
    assert capsys.readouterr().err.count("the last line was incomplete and has been removed") == 1


def test_what_a_killed_process_has_not_renamed_is_removed_at_the_end(tmp_path: Path) -> None:
    partial = [tmp_path / "refit" / ".model.pth.0123456789ab.pth", tmp_path / ".driver.json.ba9876543210.json"]
    others = [tmp_path / ".hidden.txt", tmp_path / "model.0123456789ab.pth", tmp_path / ".other.json.123456789abc.json"]
    (tmp_path / "refit").mkdir()
    for path in (*partial, *others[:2]):
        path.touch()
    with Journal(tmp_path) as journal:
        journal.emit(sweep_header())
        others[2].touch()  # by a process that is writing at present
    assert [path.exists() for path in (*partial, *others)] == [False] * 2 + [True] * 3
