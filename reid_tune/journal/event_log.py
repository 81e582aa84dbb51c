"""An append-only log of JSON lines that survives a crash at any moment."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import make_folder

__all__ = ["CURSOR", "EVENTS", "Event", "EventLog", "read_events", "read_events_from"]

CURSOR = "tracking.cursor.json"  # beside the log of a sweep
EVENTS = "events.jsonl"  # in the folder that a log is of

Event = dict[str, Any]


class EventLog:
    """Write access to one log; a second writer on the same machine is refused while this one is open.

    Each event is one JSON object with `kind`, `time` (seconds since the epoch) and fields of its kind. An event is
    on disk when `append` returns. A line that a crash cut short is dropped when the log is opened again.

    Args:
        held: Whether whoever has started this process holds the log meanwhile, and does not write.

    Raises:
        InputError: another process writes this log, or the folder cannot be written.
    """

    def __init__(self, path: Path | str, *, held: bool = False) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        try:
            # Unbuffered, so that nothing of an event that failed is left to be written with the next one.
            self._file = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}.") from None
        if held:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(
                f"{self.path.parent} is in use by another running process: wait for it or stop it."
            ) from None
        except OSError:
            pass  # A network file system without locks.
        self._drop_torn_line()

    def append(self, kind: str, **fields: Any) -> Event:
        """Write one event durably and return it.

        Raises:
            InfrastructureError: the disk is full or gone; the log then ends with the last whole event.
        """
        event = {"kind": kind, "time": time.time(), **fields}
        line = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), end)
            raise InfrastructureError(
                f"cannot write {self.path}: {error.strerror}; nothing finished is lost."
            ) from None
        return event

    def close(self) -> None:
        """Release the log for other writers."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_torn_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._file.fileno(), whole)


def read_events(path: Path | str) -> list[Event]:
    """All whole events of a log in order; none where the file does not exist."""
    return [event for event, _ in read_events_from(path, 0)]


def read_events_from(path: Path | str, offset: int) -> Iterator[tuple[Event, int]]:
    """Events that begin at a byte offset or later, each with the offset behind it.

    Raises:
        InputError: a whole line is not a JSON object, so the file is not an event log.
    """
    if not Path(path).exists():
        return
    with Path(path).open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield _parse(line, path, offset), offset


def _parse(line: bytes, path: Path | str, offset: int) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise InputError(f"{path}: not an event log: the line before byte {offset} is not a JSON object.")
    return event
