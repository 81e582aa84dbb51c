"""Damaged and random files of a sweep: event log, requests, lease, and the position of the sender."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from reid_tune.journal.checksum import add_checksum
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import EventError, parse_event, to_line
from reid_tune.journal.lease import LEASE, Lease
from reid_tune.journal.progress import read_sweep
from reid_tune.journal.requests import Request, pending_requests, submit_request
from reid_tune.report.overview import list_sweeps
from reid_tune.storage.object_store import LocalStore
from reid_tune.tracking.cursor import Cursor, cursor_path

from ..helpers.report_events import events as sweep_events
from .mutations import changed_json, deep_json, fuzz, mutate, one_input, seeds

EVENTS = sweep_events()
LINES = [to_line(event) + b"\n" for event in EVENTS]
LOG = b"".join(LINES)


def is_subsequence(part: list[Any], whole: list[Any]) -> bool:
    remaining = iter(whole)
    return all(any(item == other for other in remaining) for item in part)


def checked(text: str) -> bytes:
    """The line of a text of JSON with the checksum that it needs."""
    body = text.encode(errors="surrogatepass").removesuffix(b"}")
    return body + b',"crc32":"%08x"}' % crc32(body)


@fuzz(150)
@given(seed=seeds)
def test_a_damaged_log_has_only_events_that_were_written(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "s" / "events.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(mutate(LOG, seed))
    with one_input(f"{path}, line "):
        assert is_subsequence(read_events(path), EVENTS + EVENTS + EVENTS + EVENTS)
    with one_input(path.parent):
        read_sweep(path.parent)
    assert len(list_sweeps(tmp_path)) == 1


@fuzz(100)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(["drop", "double", "swap", "cut"]), *[st.integers(0, len(LINES) - 1)] * 2), max_size=4
    )
)
def test_a_log_of_other_whole_lines(tmp_path: Path, changes: list[tuple[str, int, int]]) -> None:
    lines = list(LINES)
    for kind, first, second in changes:
        if kind == "swap":
            lines[first % len(lines)], lines[second % len(lines)] = (
                lines[second % len(lines)],
                lines[first % len(lines)],
            )
        elif kind == "double":
            lines.insert(second, lines[first % len(lines)])
        elif len(lines) > 1:
            first %= len(lines)
            del lines[first : min(first + 1 if kind == "drop" else second, first + len(lines) - 1)]
    folder = tmp_path / "s"
    folder.mkdir(exist_ok=True)
    (folder / "events.jsonl").write_bytes(b"".join(lines))
    with one_input(folder.name):
        read_sweep(folder)
    assert len(list_sweeps(tmp_path)) == 1


@st.composite
def event_lines(draw: st.DrawFn) -> bytes:
    """The line of an event in which values are others, with its right checksum."""
    event = draw(st.sampled_from(EVENTS))
    content = {"kind": event.kind} | {item.name: getattr(event, item.name) for item in fields(event)}
    return checked(json.dumps(draw(changed_json(json.loads(json.dumps(content))))))


@fuzz(100)
@given(line=event_lines() | (deep_json | st.text(max_size=9)).map(checked))
def test_an_event_of_another_program(line: bytes) -> None:
    with one_input(errors=(EventError,)):
        parse_event(line)


@fuzz(60)
@given(line=event_lines(), position=st.integers(0, len(LINES)))
def test_a_log_with_an_event_of_another_program(tmp_path: Path, line: bytes, position: int) -> None:
    folder = tmp_path / "s"
    folder.mkdir(exist_ok=True)
    (folder / "events.jsonl").write_bytes(b"".join([*LINES[:position], line + b"\n", *LINES[position:]]))
    with one_input(folder.name):
        read_sweep(folder)
    assert len(list_sweeps(tmp_path)) == 1


def read_requests(folder: Path) -> list[Request]:
    warnings = list[str]()
    with one_input():
        requests = pending_requests(folder, warnings.append)
    assert len(requests) + len(warnings) == 1 and pending_requests(folder) == requests
    return requests


@fuzz(60)
@given(seed=seeds, stop=st.booleans())
def test_damaged_requests(tmp_path: Path, seed: int, stop: bool) -> None:
    content: Any = "trials/0003" if stop else {"train.optim.base_lr": 0.01, "train.optim.lr_steps": [1, 2]}
    path = tmp_path / submit_request(LocalStore(tmp_path), "stop" if stop else "enqueue", content)
    damaged = mutate(path.read_bytes(), seed)
    path.write_bytes(damaged)
    for request in read_requests(tmp_path):
        assert (request.run or request.parameters) == content
    for file in path.parent.iterdir():
        file.unlink()


@fuzz(60)
@given(
    text=deep_json
    | changed_json({"kind": "stop", "content": "trials/0001"}).map(json.dumps)
    | changed_json({"kind": "enqueue", "content": {"train.optim.base_lr": 0.1}}).map(json.dumps)
)
def test_requests_of_another_program(tmp_path: Path, text: str) -> None:
    path = tmp_path / "requests" / "1.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(checked(text))
    read_requests(tmp_path)
    for file in path.parent.iterdir():
        file.unlink()


DRIVER = {"owner": "00", "machine": "gone", "host": "node7", "pid": 1, "count": 1}


@fuzz(6)
@given(seed=seeds, content=changed_json(DRIVER))
def test_a_damaged_lease(tmp_path: Path, seed: int, content: Any) -> None:
    lease = checked(json.dumps(content))
    (tmp_path / LEASE).write_bytes(mutate(lease, seed) if seed % 2 else lease)
    with one_input(), Lease(LocalStore(tmp_path), silence=0.01):
        pass
    (tmp_path / LEASE).unlink(missing_ok=True)


POSITION = {"parent": "abc", "offset": len(LOG), "end": "crc", "files": [0, 10]}


@fuzz(60)
@given(
    content=seeds.map(lambda seed: mutate(add_checksum(POSITION) + b"\n", seed))
    | (deep_json | changed_json(POSITION).map(json.dumps)).map(checked)
)
def test_a_damaged_position_of_the_sender(tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "events.jsonl"
    log.write_bytes(LOG)
    cursor_path(log).write_bytes(content)
    with one_input():
        assert Cursor(log, "sqlite:///none.db", None).lag() >= 0
