"""The file with the sender's position: one that was damaged, or that another program wrote, counts as none."""

from pathlib import Path
from zlib import crc32

import pytest

from reid_tune.tracking.cursor import Cursor, cursor_path

from ..helpers.events import write_events
from ..helpers.report_events import events as sweep_events

WHOLE = b'{"parent":"abc","offset":300,"end":"crc","files":[0]'


def signed(body: bytes) -> bytes:
    """A line with the right checksum, whatever it holds."""
    return body + b',"crc32":"%08x"}\n' % crc32(body)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\x00" * 90,
        signed(WHOLE).replace(b"300", b"301"),
        signed(b"null"),
        signed(b"[" * 20_000),
        signed(b'{"parent":"abc"'),
        signed(WHOLE.replace(b"300", b"-2")),
        signed(WHOLE.replace(b"300", b"1e999")),
        signed(WHOLE.replace(b"300", b"25276527192.0")),  # more bytes than the log has, and than fit into memory
        signed(WHOLE.replace(b"300", b'"far"')),
        signed(WHOLE.replace(b"300", b"null")),
        signed(WHOLE.replace(b"[0]", b"[-1]")),
        signed(WHOLE.replace(b"[0]", b"[[0]]")),
        signed(WHOLE.replace(b"[0]", b"7")),
    ],
)
def test_all_events_are_sent_again(tmp_path: Path, content: bytes | None) -> None:
    log = tmp_path / "events.jsonl"
    write_events(log, sweep_events())
    if content is not None:
        cursor_path(log).write_bytes(content)
    assert Cursor(log, "sqlite:///none.db", None).lag() == len(sweep_events())


def test_a_whole_position_is_used(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    write_events(log, sweep_events())
    size = log.stat().st_size
    cursor_path(log).write_bytes(signed(WHOLE.replace(b"300", b"%d" % size)))
    assert Cursor(log, "sqlite:///none.db", None).lag() == 1, "the files of one event"
