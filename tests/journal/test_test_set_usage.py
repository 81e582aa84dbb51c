from pathlib import Path
from typing import Any

from reid_tune.journal.event_log import EventLog
from reid_tune.journal.test_set_usage import count_test_evaluations, test_evaluations_sentence


def log(storage: Path, name: str, *results: Any, state: str = "done", stage: str = "test") -> Path:
    with EventLog(storage / name / "events.jsonl") as events:
        events.append("sweep", name=name)
        for result in results:
            events.append("stage", stage=stage, state=state, result=result)
    return storage / name / "events.jsonl"


def looked(**data: str) -> dict[str, Any]:
    return {"winner": {"plain": {"mAP": 0.5}}, "data": data}


def test_every_finished_test_stage_of_every_sweep_counts(tmp_path: Path) -> None:
    log(tmp_path, "one", looked(test="abc", other="def"))
    log(tmp_path, "twice", looked(test="abc"), looked(test="abc"))
    log(tmp_path, "two names of one set", looked(test="abc", again="abc"))
    log(tmp_path, "another set", looked(test="xyz", other="def"))
    log(tmp_path, "not done", looked(test="abc"), state="started")
    log(tmp_path, "another stage", looked(test="abc"), stage="confirm")
    assert [count_test_evaluations(tmp_path, each) for each in ("abc", "def", "xyz", "ab", "test")] == [4, 2, 1, 0, 0]


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    log(tmp_path, "good", looked(test="abc"))
    log(tmp_path, "older", {"winner": {}}, None, [], {"data": "abc"}, {"data": ["abc"]})
    damaged = log(tmp_path, "damaged", looked(test="abc"))
    damaged.write_bytes(b"no JSON\n" + damaged.read_bytes())
    torn = log(tmp_path, "torn", looked(test="abc"), looked(test="abc"))
    torn.write_bytes(torn.read_bytes()[:-5])
    (tmp_path / "folder" / "events.jsonl").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "events.jsonl").write_text("not a sweep's\n")
    assert count_test_evaluations(tmp_path, "abc") == 2
    assert count_test_evaluations(tmp_path / "gone", "abc") == 0


def test_the_count_in_words(tmp_path: Path) -> None:
    assert test_evaluations_sentence(1, "runs") == "this test set has been looked at 1 time by sweeps in runs"
    assert test_evaluations_sentence(3, "/a b") == "this test set has been looked at 3 times by sweeps in /a b"
