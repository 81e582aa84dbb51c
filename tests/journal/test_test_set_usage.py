from pathlib import Path
from typing import Any

from reid_tune.journal.event_log import EventLog
from reid_tune.journal.events import StageDone
from reid_tune.journal.test_set_usage import count_test_evaluations, evaluation_count_sentence

from ..helpers.events import sweep_header


def log(storage: Path, name: str, *results: dict[str, Any], stage: str = "test") -> Path:
    with EventLog(storage / name / "events.jsonl") as events:
        events.append(sweep_header(name=name))
        for result in results:
            events.append(StageDone(stage=stage, result=result))
    return storage / name / "events.jsonl"


def evaluated(**data: str) -> dict[str, Any]:
    return {"winner": {"plain": {"mAP": 0.5}}, "data": data}


def test_every_finished_test_stage_of_every_sweep_counts(tmp_path: Path) -> None:
    log(tmp_path, "one", evaluated(test="abc", other="def"))
    log(tmp_path, "twice", evaluated(test="abc"), evaluated(test="abc"))
    log(tmp_path, "two names of one set", evaluated(test="abc", again="abc"))
    log(tmp_path, "another set", evaluated(test="xyz", other="def"))
    log(tmp_path, "not done")
    log(tmp_path, "another stage", evaluated(test="abc"), stage="confirm")
    digests = ("abc", "def", "xyz", "ab", "test")
    assert [count_test_evaluations(tmp_path, digest) for digest in digests] == [4, 2, 1, 0, 0]


def test_logs_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    log(tmp_path, "good", evaluated(test="abc"))
    damaged = log(tmp_path, "damaged", evaluated(test="abc"))
    damaged.write_bytes(b"not JSON\n" + damaged.read_bytes())
    torn = log(tmp_path, "torn", evaluated(test="abc"), evaluated(test="abc"))
    torn.write_bytes(torn.read_bytes()[:-5])
    (tmp_path / "folder" / "events.jsonl").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "events.jsonl").write_text("not a sweep's\n")
    assert count_test_evaluations(tmp_path, "abc") == 2
    assert count_test_evaluations(tmp_path / "gone", "abc") == 0


def test_the_count_as_a_sentence(tmp_path: Path) -> None:
    assert evaluation_count_sentence(1, "runs") == "this test set has been evaluated 1 time by sweeps in runs"
    assert evaluation_count_sentence(3, "/a b") == "this test set has been evaluated 3 times by sweeps in /a b"
