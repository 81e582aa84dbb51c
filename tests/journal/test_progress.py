import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from reid_tune.errors import InputError
from reid_tune.journal.checksum import add_checksum
from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.events import EpochReported, Event, StageDone, StagesReopened, StageStarted, to_line
from reid_tune.journal.progress import is_driver_running, read_sweep, sweep_progress
from reid_tune.journal.stages import STAGES

from ..helpers.events import driver_started, sweep_header, write_events

HOST = socket.gethostname()
Log = list[Event]


def driver(time: float, pid: int = 0, host: str = HOST, command: tuple[str, ...] = ("x", "sweep")) -> Event:
    return driver_started(time=time, pid=pid, host=host, command=list(command))


def start(time: float, name: str) -> Event:
    return StageStarted(time=time, stage=name)


def end(time: float, name: str) -> Event:
    return StageDone(time=time, stage=name, result={})


def epoch(time: float) -> Event:
    return EpochReported(time=time, run="trials/0000", epoch=1, metrics={})


def done(*names: str) -> Log:
    return [make(1, name) for name in names for make in (start, end)]


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
    search = [*done("preflight"), start(2, "search")]
    assert str(sweep_progress([at_work, *search])) == "running: search"
    assert str(sweep_progress([driver(0), *search])) == "interrupted at search"
    assert str(sweep_progress([driver(0)])) == "interrupted at the start"
    assert str(sweep_progress([driver(0), *done("preflight", "search")])) == "ended after search"
    assert str(sweep_progress([at_work, *done(*STAGES)])) == "finished"
    assert str(sweep_progress([driver(0, host="elsewhere"), *search])) == "at search on elsewhere"


def test_a_process_that_has_the_number_but_not_the_command_is_no_driver(process: subprocess.Popen[str]) -> None:
    search = start(1, "search")
    assert sweep_progress([driver(0, process.pid, command=("x", "sweep", "other")), search]).state == "interrupted"
    process.kill()
    process.wait()
    assert sweep_progress([driver(0, process.pid, command=("x", "sweep", "it")), search]).state == "interrupted"


@pytest.mark.parametrize(
    ("words", "recorded", "running"),
    [
        (["sweep", "it"], ["sweep", "it"], True),
        # The key is moved to the environment before the command line is recorded; without a key the word stays.
        (["sweep", "it", "encryption_key=hush"], ["sweep", "it"], True),
        (["encryption_key=hush", "sweep", "it"], ["sweep", "it"], True),
        (["sweep", "encryption_key=a", "it", "encryption_key=b"], ["sweep", "it"], True),
        (["sweep", "it", "encryption_key="], ["sweep", "it", "encryption_key="], True),
        (["sweep", "it", "encryption_key="], ["sweep", "it"], False),
        (["sweep", "it"], ["sweep", "it", "encryption_key="], False),
        (["sweep", "it", "encryption_key=hush"], ["sweep", "it", "encryption_key="], False),
        (["sweep", "it", "my_encryption_key=x"], ["sweep", "it"], False),
        (["sweep", "that"], ["sweep", "it"], False),
    ],
)
def test_a_driver_is_known_by_its_command_without_the_key(words: list[str], recorded: list[str], running: bool) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "\n"
        assert is_driver_running(driver_started(pid=process.pid, command=["reid-tune", *recorded])) is running
        process.kill()


def test_no_driver_and_one_on_another_host() -> None:
    assert is_driver_running(None) is False and is_driver_running(driver_started()) is False
    assert is_driver_running(driver_started(host="elsewhere")) is None


def test_the_time_between_two_drivers_belongs_to_no_stage() -> None:
    log = [
        driver(0),
        start(1, "preflight"),
        end(3, "preflight"),
        start(3, "search"),
        epoch(10),
        epoch(20),
        driver(1000),
        start(1001, "search"),
        epoch(1031),
        end(1041, "search"),
    ]
    progress = sweep_progress(log)
    assert [(item.name, item.started, item.seconds, item.done) for item in progress.stages] == [
        ("preflight", 1, 2, True),
        ("search", 3, 17 + 40, True),
    ]
    assert progress.last == 1041


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "holds no sweep: it has no events.jsonl"),
        ("", "has not started"),
        ("text\n", "line 1: its checksum is missing or wrong. The log is damaged"),
        ({"kind": "sweep", "time": 1.0}, "line 1: 'sweep' lacks 'lock', 'name'"),
        ({"time": 1.0}, "line 1: its kind is None, but the kinds are sweep, train"),
    ],
)
def test_a_folder_without_a_sweep_is_one_sentence(tmp_path: Path, content: Any, part: str) -> None:
    if isinstance(content, dict):
        content = add_checksum(content).decode() + "\n"
    if content is not None:
        (tmp_path / EVENTS).write_text(content)
    with pytest.raises(InputError, match=part):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    "events",
    [
        [sweep_header(), epoch(1.0)],
        [sweep_header(sweep={})],
        [sweep_header(sweep={"objective": {"metric": "mAP"}, "budget": {"trials": None}})],
        [sweep_header(sweep={"objective": {"metric": "mAP"}, "budget": {"trials": "ten"}})],
        [sweep_header(sweep={"objective": {"metric": "mAP"}, "budget": [3]})],
        [sweep_header(sweep={"objective": [], "budget": {"trials": 3}})],
    ],
)
def test_events_that_do_not_fit_together_are_one_sentence(tmp_path: Path, events: Log) -> None:
    write_events(tmp_path / EVENTS, events)
    with pytest.raises(InputError, match="is damaged, or not the log of a sweep: its events do not fit together"):
        read_sweep(tmp_path)


def test_a_number_that_is_too_large_is_one_sentence(tmp_path: Path) -> None:
    line = to_line(sweep_header()).replace(b'"trials":1', b'"trials":1e999')
    body = line.rpartition(b',"crc32"')[0]
    (tmp_path / EVENTS).write_bytes(body + b',"crc32":"%08x"}\n' % crc32(body))
    with pytest.raises(InputError, match="do not fit together"):
        read_sweep(tmp_path)


def test_a_sweep_that_was_opened_again_is_not_finished() -> None:
    whole = [driver(0), *done(*STAGES)]
    assert sweep_progress(whole).state == "finished"
    opened = StagesReopened(time=5.0, stages=list(STAGES[1:]), runs=[])
    again = [*whole, driver(4), opened, start(6, "search"), end(9, "search")]
    progress = sweep_progress(again)
    assert (progress.state, progress.stage) == ("ended", "search")
    assert [item.name for item in progress.stages] == ["preflight", "search"]
