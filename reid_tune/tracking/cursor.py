"""Position in a log up to which a store has its events."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from reid_tune.files import write_atomic
from reid_tune.journal.checksum import add_checksum, read_checked
from reid_tune.journal.event_log import CURSOR, read_events_from, read_header
from reid_tune.journal.events import DriverEnded, Event
from reid_tune.tracking.projection import Description, Projection
from reid_tune.tracking.store import client, is_permanent, one_line

__all__ = ["Cursor", "cursor_path"]

_BATCH_EVENTS = 100  # at most, between two writes of the position
_END_BYTES = 20  # of a line, which tell whether the log is the one that was sent
_MAX_FAILURES = 3  # of sending from one position, after which a store's refusal counts as permanent


def cursor_path(log_path: Path) -> Path:
    """Return the path of the file that keeps the position in a log."""
    return log_path.with_name(CURSOR if log_path.stem == "events" else f"{log_path.stem}.cursor.json")


class Cursor:
    """Sends the events after a position, which is kept next to the log, see `cursor_path`.

    Files are sent after the events that name them, so that an unreachable artifact store does not delay metrics.

    Args:
        log_path: Event log.
        uri: Address of the store.
        describe: Makes the description of the log for the parent run.

    Attributes:
        accepted: Number of events and files that the store has accepted from this cursor, perhaps some of them twice.
        refusal: The last permanent refusal by the store in one line, or None.
        repair: Sentence about runs that were deleted in the store and are there again, or None.
    """

    def __init__(self, log_path: Path, uri: str, describe: Callable[[], Description] | None) -> None:
        self.refusal: str | None = None
        self.repair: str | None = None
        self.accepted = 0
        self._log, self._uri, self._describe = Path(log_path), uri, describe
        self._projection: Projection | None = None
        self._parent, self._offset, self._end = "", 0, ""
        self._file_offsets: list[int] = []  # of events whose files are not sent yet
        self._read()
        self._lines = _LineCounter(self._log)
        self._sent = self._lines.before(self._offset)
        self._last_event: Event | None = None
        self._failures = Counter[int]()  # by offset
        self._batch_events = _BATCH_EVENTS

    def lag(self) -> int:
        """Return the number of complete events after the position, plus that of events with files to send."""
        return max(0, self._lines.total() - self._sent) + len(self._file_offsets)

    def send(self, stop: threading.Event) -> int:
        """Send events until the log ends or `stop` is set; the position stays before the first that could not be sent.

        If somebody has deleted a run or the experiment in the store, it is restored with all its contents.

        Returns:
            Number of events sent.
        """
        sent, restored = 0, False
        while not stop.is_set():
            self._projection = projection = self._projection or self._connect()
            if projection is None:
                return 0
            try:
                count = self._send_batch(projection)
                if not count:
                    self._send_files(projection)
                    projection.describe()
                    return sent
            except Exception as error:
                self._projection = None  # It has applied events that are sent again.
                self._failures[self._offset] += 1
                # A busy server may refuse one in so many requests: smaller batches arrive between two refusals.
                self._batch_events = max(1, self._batch_events // 4)
                if restored or not projection.is_deletion_error(error):
                    raise
                self.repair = f"runs that were deleted in the store have been restored ({one_line(error)})"
                restored, self._parent = True, ""
                continue
            sent += count
        return sent

    def close(self) -> None:
        """End the unfinished runs of a log that no driver writes any more, at the time of its last event.

        A driver that was killed after its last stage, or its last epoch, has finished.
        """
        if self._projection and self._last_event and not isinstance(self._last_event, DriverEnded):
            status: Literal["FINISHED", "KILLED"] = "FINISHED" if self._projection.is_complete else "KILLED"
            self._projection.apply(DriverEnded(time=self._last_event.time, status=status))

    def _send_batch(self, projection: Projection) -> int:
        count, offset, file_offsets = 0, self._offset, list[int]()
        after_retries = self._failures[offset] >= _MAX_FAILURES
        for event, end in read_events_from(self._log, offset):
            self._send_or_skip(projection.apply, event, projection, after_retries)
            if projection.has_files(event):
                file_offsets.append(offset)
            self._last_event, offset = event, end
            count += 1
            self.accepted += 1
            if count >= self._batch_events:
                break
        if count:
            projection.flush()
            self._batch_events = min(_BATCH_EVENTS, 2 * self._batch_events)
            self._offset, self._sent = offset, self._sent + count
            self._file_offsets = [*self._file_offsets, *file_offsets]
            self._write()
        return count

    def _send_files(self, projection: Projection) -> None:
        """Send all files that can be sent, then raise the first error."""
        after_retries, first_error = self._failures[self._offset] >= _MAX_FAILURES, None
        for offset in list(self._file_offsets):
            event, _ = next(read_events_from(self._log, offset))
            try:
                self._send_or_skip(projection.upload, event, projection, after_retries)
            except Exception as error:
                if projection.is_deletion_error(error):
                    raise
                first_error = first_error or error
                continue
            self._file_offsets.remove(offset)
            self.accepted += 1
            self._write()
        if first_error:
            raise first_error

    def _send_or_skip(
        self, send: Callable[[Event], None], event: Event, projection: Projection, after_retries: bool
    ) -> None:
        """Send an event, or skip it if the store will never accept it."""
        try:
            send(event)
        except Exception as error:
            if not is_permanent(error, after_retries) or projection.is_deletion_error(error):
                raise
            self.refusal = one_line(error)

    def _connect(self) -> Projection | None:
        header = read_header(self._log)
        if header is None:
            return None
        description = self._describe() if self._describe else None
        projection = Projection(client(self._uri), header, self._log.parent, description)
        # Another store, or one whose contents were lost, has another parent run: it gets all events. So does the store
        # of a log that was restored from a copy.
        if projection.parent != self._parent or self._end != self._lines.end_before(self._offset):
            self._offset, self._sent, self._file_offsets = 0, 0, []
        self._parent = projection.parent
        for event, end in read_events_from(self._log, 0):
            if end > self._offset:
                break
            projection.recall(event)
            self._last_event = event
        return projection

    def _write(self) -> None:
        self._end = self._lines.end_before(self._offset)
        content = {"parent": self._parent, "offset": self._offset, "end": self._end, "files": self._file_offsets}
        write_atomic(cursor_path(self._log), add_checksum(content) + b"\n")

    def _read(self) -> None:
        try:
            content = read_checked(cursor_path(self._log).read_bytes())
            self._parent, self._offset, self._end = str(content["parent"]), int(content["offset"]), str(content["end"])
            self._file_offsets = [int(offset) for offset in content["files"]]
            size = self._log.stat().st_size
            if not all(0 <= offset <= size for offset in (self._offset, *self._file_offsets)):
                raise ValueError
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            self._parent, self._offset, self._end, self._file_offsets = "", 0, "", []


class _LineCounter:
    """Counts the complete lines of a file that grows, and reads each part of it once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = self._count = 0
        self._lock = threading.Lock()

    def total(self) -> int:
        """Return the number of complete lines, as far as the file can be read."""
        with self._lock:
            content = self._bytes(self._offset, None)
            lines = content[: content.rfind(b"\n") + 1]
            self._offset, self._count = self._offset + len(lines), self._count + lines.count(b"\n")
            return self._count

    def before(self, offset: int) -> int:
        """Return the number of lines before an offset in bytes."""
        return self._bytes(0, offset).count(b"\n")

    def end_before(self, offset: int) -> str:
        """Return the last characters before an offset in bytes, which include the checksum of the line."""
        return self._bytes(max(0, offset - _END_BYTES), offset).decode(errors="replace")

    def _bytes(self, start: int, end: int | None) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                return file.read() if end is None else file.read(end - start)
        except OSError:
            return b""
