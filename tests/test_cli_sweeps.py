"""`reid-tune report`, `sweeps` and `logs` as a user meets them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from reid_tune.events.log import EventLog

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in a folder with one sweep: its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    with EventLog(Path("runs/s/events.jsonl")) as log:
        sweep = {"objective": {"metric": "mAP"}, "budget": {"trials": 3}, "space": {"train.seed": {"int": [1, 9]}}}
        log.append("sweep", name="s", sweep=sweep, spec={"train.seed": 5})
        log.append("stage", stage="search", state="begun", result={})
        log.append("suggested", run="trials/0000", parameters={})
        log.append("report", run="trials/0000", epoch=1, metrics={"mAP": 0.5})
        log.append("ended", run="trials/0000", state="finished", epoch=1)

    return command


def test_a_report_comes_with_a_page(run: Run) -> None:
    status, out, err = run("report", "s")
    assert (status, err) == (0, "") and "50.0" in out
    assert out.splitlines()[-1] == "page: runs/s/report.html"
    assert "interrupted at search" in Path("runs/s/report.html").read_text()


def test_data_for_programs_come_without_a_page_unless_one_is_asked_for(run: Run) -> None:
    status, out, err = run("report", "s", "--format", "json")
    assert (status, err, json.loads(out)["winner"]) == (0, "", 0)
    assert [path.name for path in Path("runs/s").iterdir()] == ["events.jsonl"]
    status, again, err = run("report", "s", "--format", "json", "--html", "new/page.html")
    assert (status, again, err) == (0, out, "page: new/page.html\n")
    assert Path("new/page.html").is_file() and not Path("runs/s/report.html").exists()


def test_a_page_that_cannot_be_written(run: Run) -> None:
    status, out, err = run("report", "s", "--html", "runs")
    assert (status, out) == (2, "") and err == "reid-tune: --html = 'runs' is a folder: name a file.\n"
    Path("runs/s/report.html").mkdir()
    status, out, err = run("report", "s")
    assert status == 0 and "50.0" in out and err.startswith("no page: ") and "is a folder" in err


def test_sweeps_in_all_formats(run: Run) -> None:
    Path("runs/other").mkdir()
    status, out, err = run("sweeps")
    assert (status, err) == (0, "") and "interrupted at search" in out and "1/3" in out
    assert "runs/other holds no sweep" in out
    found = json.loads(run("sweeps", "--format", "json")[1])
    assert [line["name"] for line in found] == ["other", "s"] and found[1]["best"] == 0.5
    assert yaml.safe_load(run("sweeps", "--format", "yaml")[1]) == found
    assert run("sweeps", "--storage", "gone")[0] == 2


def test_logs(run: Run) -> None:
    missing = "reid-tune: the sweep s has no run trials/0007; its trials are 0 to 0.\n"
    assert run("logs", "s/7") == (2, "", missing)
    assert run("logs", "s/0")[0] == run("logs", "s", "--follow")[0] == run("logs", "t/0")[0] == 2
    Path("runs/s/trials/0000").mkdir(parents=True)
    Path("runs/s/trials/0000/log.txt").write_text("one\ntwo")
    assert run("logs", "s/0") == run("logs", "s/0", "--follow") == (0, "one\ntwo", "")
    assert "two" in run("logs", "s")[1]
