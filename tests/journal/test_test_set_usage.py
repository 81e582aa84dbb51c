import json
from pathlib import Path

import pytest

from reid_tune.journal.event_log import EventLog, read_events
from reid_tune.journal.events import StageDone, StagesReopened, TestSetEvaluated
from reid_tune.journal.state import replay
from reid_tune.journal.test_set_usage import (
    count_test_evaluations,
    evaluation_count_sentence,
    store_test_evaluation,
)

from ..helpers.events import sweep_header


def log(storage: Path, name: str, *evaluations: tuple[str, dict[str, str]], done: bool = False) -> Path:
    with EventLog(storage / name / "events.jsonl") as events:
        events.append(sweep_header(name=name))
        for uid, data in evaluations:
            events.append(TestSetEvaluated(uid=uid, data=data))
        if done:
            events.append(StageDone(stage="test", result={}))
    return storage / name / "events.jsonl"


def test_every_evaluation_of_every_sweep_and_command_counts_once(tmp_path: Path) -> None:
    log(tmp_path, "one", ("1", {"test": "abc", "other": "def"}), done=True)
    log(tmp_path, "failed after its scores", ("2", {"test": "abc"}))
    log(tmp_path, "twice", ("3", {"test": "abc"}), ("4", {"test": "abc"}), done=True)
    log(tmp_path, "two names of one set", ("5", {"test": "abc", "again": "abc"}))
    log(tmp_path, "another set", ("6", {"test": "xyz", "other": "def"}))
    log(tmp_path, "not done")
    digests = ("abc", "def", "xyz", "ab", "test")
    assert [count_test_evaluations(digest, tmp_path) for digest in digests] == [5, 2, 1, 0, 0]
    for uid, sets in (("1", ["abc", "def"]), ("7", ["abc"]), ("8", ["abc", "abc"]), ("8", ["abc"])):
        store_test_evaluation(uid, sets, "evaluate model.pth")
    assert [count_test_evaluations(digest, tmp_path) for digest in digests] == [7, 2, 1, 0, 0]
    assert [count_test_evaluations(digest) for digest in digests] == [3, 1, 0, 0, 0], "of other storages, too"


def test_logs_and_lines_that_cannot_be_read_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    log(tmp_path, "good", ("1", {"test": "abc"}))
    damaged = log(tmp_path, "damaged", ("2", {"test": "abc"}))
    damaged.write_bytes(b"not JSON\n" + damaged.read_bytes())
    torn = log(tmp_path, "torn", ("3", {"test": "abc"}), ("4", {"test": "abc"}))
    torn.write_bytes(torn.read_bytes()[:-5])
    (tmp_path / "folder" / "events.jsonl").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "events.jsonl").write_text("not a sweep's\n")
    assert count_test_evaluations("abc", tmp_path) == 2
    assert count_test_evaluations("abc", tmp_path / "gone") == 0
    store_test_evaluation("5", ["abc"], "evaluate")
    (file,) = (tmp_path / "state" / "reid-tune" / "test-evaluations").iterdir()
    assert file.name == "abc.jsonl" and json.loads(file.read_text())["command"] == "evaluate"
    file.write_bytes(b"[]\n{}\n7\n\xff\n\n" + file.read_bytes() + b'{"uid": "6", "ti')
    assert count_test_evaluations("abc", tmp_path) == 3


def test_a_state_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    store_test_evaluation("1", ["abc"], "evaluate")
    assert "is not counted on this machine" in capsys.readouterr().err
    assert count_test_evaluations("abc") == 0


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_without_an_absolute_folder_the_home_folder_has_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    store_test_evaluation("1", ["abc"], "evaluate")
    assert (tmp_path / ".local" / "state" / "reid-tune" / "test-evaluations" / "abc.jsonl").is_file()


def test_a_resumed_stage_repeats_its_evaluation_and_one_that_is_done_again_does_not(tmp_path: Path) -> None:
    path = log(tmp_path, "killed", ("1", {"test": "abc"}))
    assert replay(read_events(path)).test_evaluation == "1"
    for event in (StagesReopened(stages=["export", "test"], runs=[]), StageDone(stage="test", result={})):
        assert replay([*read_events(path), event]).test_evaluation == ""


def test_the_count_as_a_sentence() -> None:
    assert evaluation_count_sentence(1) == "this test set has been evaluated 1 time by this user on this machine"
    sentence = evaluation_count_sentence(3, "/a b")
    assert sentence == "this test set has been evaluated 3 times by this user on this machine or by sweeps in /a b"
