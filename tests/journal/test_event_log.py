import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EventLog, read_events, read_events_from


def test_events_are_read_as_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first" / "events.jsonl"
    before = time.time()
    with EventLog(path) as log:
        first = log.append("sweep", name="first", spec={"train.seed": 1, "rates": [0.5, None]})
        assert read_events(path) == [first]
        second = log.append("report", text="line\nbreak \u00e4 \U0001f6b6")
    assert first["kind"] == "sweep" and before <= first["time"] <= time.time()
    assert read_events(path) == [first, second]
    assert second["text"] == "line\nbreak \u00e4 \U0001f6b6"


def test_a_log_goes_on_when_it_is_opened_again(tmp_path: Path) -> None:
    for number in range(3):
        with EventLog(tmp_path / "log") as log:
            log.append("n", number=number)
    assert [event["number"] for event in read_events(tmp_path / "log")] == [0, 1, 2]


def test_no_file_holds_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none") == []
    assert list(read_events_from(tmp_path / "none", 5)) == []


def test_offsets_continue_behind_an_event(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EventLog(path) as log:
        log.append("n", number=0)
        log.append("n", number=1)
        (_, first), (_, second) = read_events_from(path, 0)
        assert second == path.stat().st_size
        assert [event["number"] for event, _ in read_events_from(path, first)] == [1]
        assert list(read_events_from(path, second)) == []
        log.append("n", number=2)
        assert [event["number"] for event, _ in read_events_from(path, second)] == [2]


@pytest.mark.parametrize("torn", [b"{", b'{"kind":"n","time":1', b'{"kind":"n","time":1}', b"\x00\x00\xff"])
def test_a_torn_last_line_is_not_read_and_dropped_on_reopening(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log"
    with EventLog(path) as log:
        log.append("n", number=0)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [event["number"] for event in read_events(path)] == [0]
    assert path.read_bytes() == whole + torn
    with EventLog(path) as log:
        assert path.read_bytes() == whole
        log.append("n", number=1)
    assert [event["number"] for event in read_events(path)] == [0, 1]


@pytest.mark.parametrize("line", [b"hello", b"", b"[1]", b"3", b"\xff\xfe"])
def test_a_whole_line_that_is_no_event_is_an_error(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"kind":"n"}\n' + line + b"\n")
    with pytest.raises(InputError, match=rf"not an event log: the line before byte {14 + len(line)} "):
        read_events(path)


def test_values_that_json_lacks_leave_the_log_as_it_was(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        log.append("n", number=0)
        with pytest.raises(ValueError, match="not JSON compliant"):
            log.append("n", number=float("nan"))
        log.append("n", number=1)
    assert [event["number"] for event in read_events(tmp_path / "log")] == [0, 1]


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "first" / "events.jsonl"
    code = (
        "import sys\n"
        "from reid_tune.journal.event_log import EventLog\n"
        "log = EventLog(sys.argv[1])\n"
        "log.append('n', number=0)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        with pytest.raises(InputError, match=r"first is in use by another running process"):
            EventLog(path)
        assert [event["number"] for event in read_events(path)] == [0]
    finally:
        writer.kill()
        writer.communicate()
    assert writer.returncode == -9
    with EventLog(path) as log:
        log.append("n", number=1)
    assert [event["number"] for event in read_events(path)] == [0, 1]


def test_a_full_disk_leaves_whole_events_alone(tmp_path: Path) -> None:
    """A limit on the file's size stands in for a full disk: the kernel writes a part of the line, then refuses."""
    path = tmp_path / "log"
    code = (
        "import resource, signal, sys\n"
        "from reid_tune.errors import InfrastructureError\n"
        "from reid_tune.journal.event_log import EventLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = EventLog(sys.argv[1])\n"
        "log.append('n', number=0)\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))\n"
        "try:\n"
        "    log.append('n', number=1, text='x' * 1000)\n"
        "except InfrastructureError as error:\n"
        "    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "log.append('n', number=2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert f"cannot write {path}: File too large" in done.stdout
    assert [json.loads(line)["number"] for line in path.read_bytes().splitlines()] == [0, 2]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder .*file"):
        EventLog(tmp_path / "file" / "log")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write .*folder: Is a directory"):
        EventLog(tmp_path / "folder")
