import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.journal.event_log import EventLog, read_events, read_events_from, read_header
from reid_tune.journal.events import (
    AttemptStarted,
    EpochReported,
    Event,
    RunRetried,
    RunSuggested,
    SweepHeader,
    to_line,
)

from ..helpers.events import sweep_header


def number(value: int) -> Event:
    """An event that carries a number."""
    return AttemptStarted(run="trials/0000", attempt=value, cpus=1, gpus=0.0)


def numbers(path: Path) -> list[int]:
    return [event.attempt for event in read_events(path) if isinstance(event, AttemptStarted)]


def test_events_are_read_as_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first" / "events.jsonl"
    before = time.time()
    with EventLog(path) as log:
        first = log.append(sweep_header(name="first", spec={"train.seed": 1, "rates": [0.5, None]}))
        assert read_events(path) == [first]
        reason = "line\nbreak \u00e4 \U0001f6b6"
        second = log.append(RunRetried(run="trials/0000", failure="lost_worker", reason=reason))
    assert isinstance(first, SweepHeader) and before <= first.time <= time.time()
    assert read_events(path) == [first, second]
    assert isinstance(second, RunRetried) and second.reason == reason


def test_what_append_returns_is_what_a_reader_gets(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        given = RunSuggested(run="trials/0000", parameters={"train.optim.lr_steps": (40, 70)})
        recorded = log.append(given)
    assert isinstance(recorded, RunSuggested) and recorded.parameters == {"train.optim.lr_steps": [40, 70]}
    assert read_events(tmp_path / "log") == [recorded]


def test_a_log_that_is_opened_again_is_continued(tmp_path: Path) -> None:
    for value in range(3):
        with EventLog(tmp_path / "log") as log:
            log.append(number(value))
    assert numbers(tmp_path / "log") == [0, 1, 2]


def test_no_file_holds_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none") == [] and read_header(tmp_path / "none") is None
    assert list(read_events_from(tmp_path / "none", 5)) == []


def test_a_header_is_the_first_event_of_a_log(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        assert read_header(log.path) is None
        header = log.append(sweep_header())
        log.append(number(1))
        assert read_header(log.path) == header
    with EventLog(tmp_path / "other") as log:
        log.append(number(1))
    with pytest.raises(InputError, match=r"other, line 1: a log begins with 'sweep' or 'train', not 'attempt'\."):
        read_header(tmp_path / "other")


def test_offsets_continue_after_an_event(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EventLog(path) as log:
        events = [log.append(number(value)) for value in (0, 1)]
        (_, first), (_, second) = read_events_from(path, 0)
        assert second == path.stat().st_size
        assert [event for event, _ in read_events_from(path, first)] == events[1:]
        assert list(read_events_from(path, second)) == []
        third = log.append(number(2))
        assert [event for event, _ in read_events_from(path, second)] == [third]


@pytest.mark.parametrize(
    "torn", [b"{", b'{"kind":"n","time":1', b'{"kind":"n","time":1}', b"\x00\x00\xff", to_line(number(1))]
)
def test_a_torn_last_line_is_not_read_and_removed_by_the_next_writer(tmp_path: Path, torn: bytes) -> None:
    path, warnings = tmp_path / "log", list[str]()
    with EventLog(path) as log:
        log.append(number(0))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert numbers(path) == [0]
    with EventLog(path, warn=warnings.append) as log:
        assert path.read_bytes() == whole + torn
        log.append(number(1))
        log.append(number(2))
    assert warnings == [f"{path}: the last line was incomplete and has been removed: a crash cut it short."]
    assert path.read_bytes().startswith(whole) and numbers(path) == [0, 1, 2]


@pytest.mark.parametrize(
    "line",
    [b"hello", b"", b"[1]", b"3", b"\xff\xfe", b'{"kind":"n","time":1}', b"{}", to_line(number(1)).replace(b"1", b"2")],
)
@pytest.mark.parametrize("offset", [0, 1])
def test_a_whole_line_that_is_not_an_event_is_an_error_with_its_number(
    tmp_path: Path, line: bytes, offset: int
) -> None:
    path = tmp_path / "log"
    first = to_line(number(0)) + b"\n"
    path.write_bytes(first + line + b"\n" + first)
    with pytest.raises(InputError, match=rf"^{path}, line 2: .*The log is damaged, or .* delete this line"):
        list(read_events_from(path, offset * len(first)))


LINES = [to_line(number(value)) + b"\n" for value in range(5)]
WHOLE = b"".join(LINES)
MIDDLE = len(LINES[0]) + len(LINES[1])  # where the third line begins


def replaced(start: int, new: bytes) -> bytes:
    return WHOLE[:start] + new + WHOLE[start + len(new) :]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (replaced(MIDDLE + WHOLE[MIDDLE:].index(b'"attempt":2') + 10, b"7"), 3),  # a digit of a value
        (replaced(MIDDLE + 30, bytes(4)), 3),  # a run of zeros
        (replaced(MIDDLE - 3, bytes(6)), 2),  # zeros over the end of a line: two lines are one
        (replaced(MIDDLE - 1, b" "), 2),  # no line break
        (replaced(0, b"["), 1),
        (replaced(0, bytes(MIDDLE)), 1),
        (replaced(len(WHOLE) - 4, b"x"), 5),  # the last digit of the last checksum
        (replaced(len(WHOLE) - 1, b"\x0b"), 5),  # the line break of the last line
        (WHOLE[: MIDDLE + 20] + WHOLE[MIDDLE + 21 :], 3),  # a byte less
        (WHOLE[: MIDDLE + 20] + b"0" + WHOLE[MIDDLE + 20 :], 3),  # a byte more
        (WHOLE[: MIDDLE + 20] + b"\n" + WHOLE[MIDDLE + 20 :], 3),
        (WHOLE.replace(b"crc32", b"CRC32"), 1),
        (WHOLE.upper(), 1),
    ],
)
def test_damage_of_a_line_is_an_error_with_its_number(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"log, line {line}: its (checksum|line break) is .*: restore it from a copy"):
        read_events(path)


def test_no_change_of_a_byte_is_read_as_data(tmp_path: Path) -> None:
    path, draw = tmp_path / "log", random.Random(1)
    path.write_bytes(WHOLE)
    events = read_events(path)
    for position in range(len(WHOLE)):
        path.write_bytes(replaced(position, bytes([WHOLE[position] ^ 1 << draw.randrange(8)])))
        try:
            assert read_events(path) == events[:4] and position == len(WHOLE) - 1, "at most the last line is torn"
        except InputError as error:
            assert f"line {WHOLE[:position].count(10) + 1}:" in str(error)


def test_values_that_json_lacks_leave_the_log_as_it_was(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log") as log:
        log.append(number(0))
        with pytest.raises(ValueError, match="not JSON compliant"):
            log.append(EpochReported(run="trials/0000", epoch=1, metrics={"mAP": float("nan")}))
        with pytest.raises(ValueError, match="the field 'run' of 'report' must be str, not 7"):
            log.append(EpochReported(run=7, epoch=1, metrics={}))  # type: ignore[arg-type]
        log.append(number(1))
    assert numbers(tmp_path / "log") == [0, 1]


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "first" / "events.jsonl"
    code = (
        "import sys\n"
        "from reid_tune.journal.event_log import EventLog\n"
        "from reid_tune.journal.events import AttemptStarted\n"
        "log = EventLog(sys.argv[1])\n"
        "log.append(AttemptStarted(run='r', attempt=0, cpus=1, gpus=0))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        with pytest.raises(InputError, match=r"first is in use by another running process"):
            EventLog(path)
        assert numbers(path) == [0]
    finally:
        writer.kill()
        writer.communicate()
    assert writer.returncode == -9
    with EventLog(path) as log:
        log.append(number(1))
    assert numbers(path) == [0, 1]


def test_a_full_disk_leaves_only_whole_events(tmp_path: Path) -> None:
    """A limit on the file's size stands in for a full disk: the kernel writes a part of the line, then refuses."""
    path = tmp_path / "log"
    code = (
        "import resource, signal, sys\n"
        "from reid_tune.errors import InfrastructureError\n"
        "from reid_tune.journal.event_log import EventLog\n"
        "from reid_tune.journal.events import RunSuggested\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = EventLog(sys.argv[1])\n"
        "log.append(RunSuggested(run='0', parameters={}))\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))\n"
        "try:\n"
        "    log.append(RunSuggested(run='1', parameters={'x': 'x' * 1000}))\n"
        "except InfrastructureError as error:\n"
        "    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "log.append(RunSuggested(run='2', parameters={}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert f"cannot write {path}: File too large" in done.stdout
    assert [event.run for event in read_events(path) if isinstance(event, RunSuggested)] == ["0", "2"]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder .*file"):
        EventLog(tmp_path / "file" / "log")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write .*folder: Is a directory"):
        EventLog(tmp_path / "folder")


def test_a_log_that_changes_between_two_reads_is_read_again(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "other"
    path.write_bytes(LINES[0] + LINES[1])
    first = read_events(path)
    first.clear()
    assert numbers(path) == [0, 1], "the list is the caller's"
    path.write_bytes(LINES[0] + LINES[2])
    assert numbers(path) == [0, 2]
    other.write_bytes(LINES[0] + LINES[2] + LINES[3])
    assert numbers(other) == [0, 2, 3] and numbers(path) == [0, 2]
    path.write_bytes(LINES[0])
    assert numbers(path) == [0]
    path.write_bytes(LINES[0] + LINES[1] + LINES[2][:9])
    assert numbers(path) == [0, 1]
    path.write_bytes(LINES[0] + LINES[1] + LINES[2].replace(b"2", b"3") + LINES[3])
    for _ in range(2):
        with pytest.raises(InputError, match=r"log, line 3: its checksum is"):
            read_events(path)
    path.write_bytes(b"")
    assert read_events(path) == []


def test_a_log_on_a_read_only_disk_is_no_fault_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        InfrastructureError, match="cannot write .*Read-only file system; make the file system writable"
    ):
        EventLog(tmp_path / "events.jsonl")
