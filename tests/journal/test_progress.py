import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.journal.journal import EVENTS
from reid_tune.journal.progress import read_sweep, sweep_progress
from reid_tune.journal.state import STAGES

HOST = socket.gethostname()
Log = list[dict[str, Any]]


def driver(time: float, pid: int = 0, host: str = HOST, command: tuple[str, ...] = ("x", "sweep")) -> dict[str, Any]:
    return {"kind": "driver", "time": time, "pid": pid, "host": host, "command": list(command)}


def stage(time: float, name: str, state: str) -> dict[str, Any]:
    return {"kind": "stage", "time": time, "stage": name, "state": state, "result": {}}


def epoch(time: float) -> dict[str, Any]:
    return {"kind": "report", "time": time}


def done(*names: str) -> Log:
    return [stage(1, name, state) for name in names for state in ("started", "done")]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A process whose command line ends in the words `sweep it`."""
    command = [sys.executable, "-c", "print(flush=True); input()", "sweep", "it"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline() == "\n"
        yield running
        running.kill()


def test_the_words_for_every_state(process: subprocess.Popen[str]) -> None:
    at_work = driver(0, process.pid, command=("/usr/bin/reid-tune", "sweep", "it"))
    search = [*done("preflight"), stage(2, "search", "started")]
    assert str(sweep_progress([at_work, *search])) == "running: search"
    assert str(sweep_progress([driver(0), *search])) == "interrupted at search"
    assert str(sweep_progress([driver(0)])) == "interrupted at the start"
    assert str(sweep_progress([driver(0), *done("preflight", "search")])) == "ended after search"
    assert str(sweep_progress([at_work, *done(*STAGES)])) == "finished"
    assert str(sweep_progress([driver(0, host="elsewhere"), *search])) == "at search on elsewhere"


def test_a_process_that_has_the_number_but_not_the_command_is_no_driver(process: subprocess.Popen[str]) -> None:
    begun = stage(1, "search", "started")
    assert sweep_progress([driver(0, process.pid, command=("x", "sweep", "other")), begun]).state == "interrupted"
    process.kill()
    process.wait()
    assert sweep_progress([driver(0, process.pid, command=("x", "sweep", "it")), begun]).state == "interrupted"


def test_the_time_between_two_drivers_belongs_to_no_stage() -> None:
    log = [
        driver(0),
        stage(1, "preflight", "started"),
        stage(3, "preflight", "done"),
        stage(3, "search", "started"),
        epoch(10),
        epoch(20),
        driver(1000),
        stage(1001, "search", "started"),
        epoch(1031),
        stage(1041, "search", "done"),
    ]
    found = sweep_progress(log)
    assert [(item.name, item.started, item.seconds, item.done) for item in found.stages] == [
        ("preflight", 1, 2, True),
        ("search", 3, 17 + 40, True),
    ]
    assert found.last == 1041


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "holds no sweep: it has no events.jsonl"),
        ("", "has not begun"),
        ("text\n", "not an event log"),
        ('{"kind": "sweep", "time": 1.0}\n', "is damaged, or no log of a sweep"),
        ('{"time": 1.0}\n', "is damaged, or no log of a sweep"),
        ('{"kind": "report", "time": 1.0, "run": "trials/0000", "epoch": 1}\n', "is damaged"),
    ],
)
def test_a_folder_without_a_sweep_is_one_sentence(tmp_path: Path, content: str | None, part: str) -> None:
    if content is not None:
        (tmp_path / EVENTS).write_text(content)
    with pytest.raises(InputError, match=part):
        read_sweep(tmp_path)


def test_a_log_whose_metrics_are_none_is_damaged(tmp_path: Path) -> None:
    sweep = {"objective": {"metric": "mAP"}, "budget": {"trials": 1}}
    events = [
        {"kind": "sweep", "time": 1.0, "name": "s", "spec": {}, "sweep": sweep},
        {"kind": "suggested", "time": 1.0, "run": "trials/0000", "parameters": {}},
        {"kind": "report", "time": 1.0, "run": "trials/0000", "epoch": 1, "metrics": None},
        {"kind": "ended", "time": 1.0, "run": "trials/0000", "state": "finished"},
    ]
    (tmp_path / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events[:2]))
    assert read_sweep(tmp_path)[0].trials[0].number == 0
    (tmp_path / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(InputError, match="is damaged"):
        read_sweep(tmp_path)


def test_a_sweep_that_was_opened_again_is_not_finished() -> None:
    whole = [driver(0), *(stage(1, name, state) for name in STAGES for state in ("started", "done"))]
    assert sweep_progress(whole).state == "finished"
    opened = {"kind": "reopened", "time": 5.0, "stages": list(STAGES[1:]), "runs": []}
    again = [*whole, driver(4), opened, stage(6, "search", "started"), stage(9, "search", "done")]
    found = sweep_progress(again)
    assert (found.state, found.stage) == ("ended", "search")
    assert [item.name for item in found.stages] == ["preflight", "search"]
