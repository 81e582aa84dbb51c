"""An append-only log of JSON lines that survives a crash at any moment."""

import contextlib
import fcntl
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self
from zlib import crc32

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import make_folder, output_error
from reid_tune.journal.checksum import is_intact
from reid_tune.journal.events import Event, EventError, SweepHeader, TrainingHeader, parse_event, to_line

__all__ = ["CURSOR", "EVENTS", "EventLog", "read_events", "read_events_from", "read_header"]

CURSOR = "tracking.cursor.json"  # next to the log of a sweep
EVENTS = "events.jsonl"  # name of the log in its folder
# Of the log that was read last: its length, the CRC-32 of its content, and its events.
_latest: tuple[int, int, tuple[Event, ...]] = 0, 0, ()


class EventLog:
    """Write access to one log; a second writer on the same machine is refused while this one is open.

    Each event is one line with a checksum, see `events`. An event is on disk when `append` returns. A line that a crash
    cut short is removed before the next event is written.

    Args:
        path: The log's file; its folder is created.
        held: Whether the process that started this one holds the log in the meantime and does not write.
        warn: Receives a sentence about a line that was removed.

    Raises:
        InputError: Another process writes this log, or the folder cannot be written.
        InfrastructureError: The disk is full, read-only or broken.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        held: bool = False,
        warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        self.path = Path(path)
        self._warn = warn
        make_folder(self.path.parent)
        try:
            # Unbuffered, so that nothing of an event that failed is left to be written with the next one.
            self._file = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise output_error(f"cannot write {self.path}", error) from None
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

    @property
    def size(self) -> int:
        """Bytes of the log."""
        return self._file.seek(0, os.SEEK_END)

    def append(self, event: Event) -> Event:
        """Write one event durably and return it as a reader of the log gets it.

        Raises:
            ValueError: A value of the event is not JSON or has another type than its field; nothing is written.
            InfrastructureError: The disk is full or gone; the log then ends with the last whole event.
        """
        line = to_line(event)
        recorded = parse_event(line)
        line += b"\n"
        end = self.size
        try:
            end = self._remove_torn_line(end)
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), end)
            raise InfrastructureError(
                f"cannot write {self.path}: {error.strerror}; nothing finished is lost: free space or repair the disk, "
                "and continue."
            ) from None
        return recorded

    def close(self) -> None:
        """Release the log for other writers."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remove_torn_line(self, end: int) -> int:
        """Remove what follows the last line break of the first `end` bytes, and return the length that remains."""
        if not end or os.pread(self._file.fileno(), 1, end - 1) == b"\n":
            return end
        whole = self.path.read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._file.fileno(), whole)
        self._warn(f"{self.path}: the last line was incomplete and has been removed: a crash cut it short.")
        return whole


def read_events(path: Path | str) -> list[Event]:
    """Return all whole events of a log in order; none if the file does not exist.

    Events that this process has read before are not parsed again, as a resume and a report read the same log several
    times.

    Raises:
        InputError: A whole line is not an event, or is damaged.
    """
    global _latest
    try:
        content = memoryview(Path(path).read_bytes())
    except FileNotFoundError:
        return []
    length, checksum, events = _latest
    if not length or len(content) < length or crc32(content[:length]) != checksum:
        length, events = 0, ()
    later = list(_parse_lines(path, io.BytesIO(content[length:]), length))
    if later:
        length = later[-1][1]
        events += tuple(event for event, _ in later)
        _latest = length, crc32(content[:length]), events
    return list(events)


def read_header(path: Path | str) -> SweepHeader | TrainingHeader | None:
    """Return the first event of a log; None if the log does not exist or is empty.

    Raises:
        InputError: The first line is not a header.
    """
    first = next(read_events_from(path, 0), None)
    if first is None:
        return None
    header, _ = first
    if not isinstance(header, SweepHeader | TrainingHeader):
        raise InputError(
            f"{path}, line 1: a log begins with {SweepHeader.kind!r} or {TrainingHeader.kind!r}, not {header.kind!r}."
        )
    return header


def read_events_from(path: Path | str, offset: int) -> Iterator[tuple[Event, int]]:
    """Yield the events that start at a byte offset or later, each with the offset after it.

    A last line without its line break is not read: it is being written, or a crash cut it short.

    Raises:
        InputError: A whole line is not an event, or is damaged.
    """
    if not Path(path).exists():
        return
    with Path(path).open("rb") as file:
        file.seek(offset)
        yield from _parse_lines(path, file, offset)


def _parse_lines(path: Path | str, lines: Iterable[bytes], offset: int) -> Iterator[tuple[Event, int]]:
    for line in lines:
        try:
            if not line.endswith(b"\n"):
                if is_intact(line[:-1]):
                    raise EventError("its line break is damaged")
                return
            event = parse_event(line)
        except EventError as error:
            raise InputError(_damage_message(path, offset, error)) from None
        offset += len(line)
        yield event, offset


def _damage_message(path: Path | str, offset: int, error: EventError) -> str:
    with Path(path).open("rb") as file:
        number = file.read(offset).count(b"\n") + 1
    restart = ", or delete this line and all later ones and repeat their work with --resume auto" if number > 1 else ""
    return (
        f"{path}, line {number}: {error}. The log is damaged, or another version of reid-tune wrote it: "
        f"restore it from a copy{restart}."
    )
