"""The place in a log up to which a store has it."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from reid_tune.files import write_atomic
from reid_tune.journal.event_log import CURSOR, read_events_from, read_header
from reid_tune.journal.events import DriverEnded, Event
from reid_tune.tracking.projection import Description, Projection
from reid_tune.tracking.store import client, is_permanent, one_line

__all__ = ["Cursor", "cursor_of"]

TOGETHER = 100  # events at most between two records of the place


def cursor_of(log: Path) -> Path:
    """The file that keeps the place in a log."""
    return log.with_name(CURSOR if log.stem == "events" else f"{log.stem}.cursor.json")


class Cursor:
    """Sends the events behind the place, which is kept beside the log, see `cursor_of`.

    Files are sent behind the events that name them: a store of artifacts that is away holds no metrics up.

    Args:
        describe: Makes what describes the log to readers of the parent run.

    Attributes:
        taken: How many events and files the store has taken from this cursor, some perhaps twice.
        refusal: The last thing that the store has refused for good, in one line, or None.
    """

    def __init__(self, log: Path, uri: str, describe: Callable[[], Description] | None) -> None:
        self.refusal: str | None = None
        self.taken = 0
        self._log, self._uri, self._description = Path(log), uri, describe
        self._projection: Projection | None = None
        self._parent, self._offset, self._files = "", 0, list[int]()  # of files the places of their events
        self._read()
        self._lines = _Lines(self._log)
        self._sent = self._lines.before(self._offset)
        self._last: Event | None = None
        self._failures = Counter[int]()  # at one place

    def lag(self) -> int:
        """Whole events behind the place, and files that are still to be sent."""
        return max(0, self._lines.all() - self._sent) + len(self._files)

    def send(self, stop: threading.Event) -> int:
        """Send events until the log ends or `stop` is set; the place stays before the first that could not be sent.

        What somebody has deleted in the store meanwhile is brought back, with everything in it.
        """
        sent, restored = 0, False
        while not stop.is_set():
            self._projection = projection = self._projection or self._connect()
            if projection is None:
                return 0
            try:
                count = self._send_some(projection)
                if not count:
                    self._send_files(projection)
                    projection.describe()
                    return sent
            except Exception as error:
                self._projection = None  # It has taken in what is to be sent again.
                self._failures[self._offset] += 1
                if restored or not projection.lost(error):
                    raise
                self.refusal = f"what somebody has deleted there was brought back ({one_line(error)})"
                restored, self._parent = True, ""
                continue
            sent += count
        return sent

    def close(self) -> None:
        """End what is open in a log that nobody writes any more, as of its last event."""
        if self._projection and self._last and not isinstance(self._last, DriverEnded):
            self._projection.apply(DriverEnded(time=self._last.time, status="KILLED"))

    def _send_some(self, projection: Projection) -> int:
        count, offset, files = 0, self._offset, list[int]()
        tired = self._failures[offset] >= 3
        for event, end in read_events_from(self._log, offset):
            self._let_pass(projection.apply, event, projection, tired)
            if projection.has_files(event):
                files.append(offset)
            self._last, offset, count, self.taken = event, end, count + 1, self.taken + 1
            if count == TOGETHER:
                break
        if count:
            projection.flush()
            self._offset, self._sent, self._files = offset, self._sent + count, [*self._files, *files]
            self._write()
        return count

    def _send_files(self, projection: Projection) -> None:
        """Send what can be sent of the files; raises the first error behind the others."""
        tired, first = self._failures[self._offset] >= 3, None
        for place in list(self._files):
            event, _ = next(read_events_from(self._log, place))
            try:
                self._let_pass(projection.upload, event, projection, tired)
            except Exception as error:
                if projection.lost(error):
                    raise
                first = first or error
                continue
            self._files.remove(place)
            self.taken += 1
            self._write()
        if first:
            raise first

    def _let_pass(self, send: Callable[[Event], None], event: Event, projection: Projection, tired: bool) -> None:
        """What the store will never accept is passed over."""
        try:
            send(event)
        except Exception as error:
            if not is_permanent(error, tired) or projection.lost(error):
                raise
            self.refusal = one_line(error)

    def _connect(self) -> Projection | None:
        header = read_header(self._log)
        if header is None:
            return None
        description = self._description() if self._description else None
        projection = Projection(client(self._uri), header, self._log.parent, description)
        # Another store, or a store that was lost, has another parent run: it gets everything.
        if projection.parent != self._parent or self._offset > self._log.stat().st_size:
            self._offset, self._sent, self._files = 0, 0, []
        self._parent = projection.parent
        for event, end in read_events_from(self._log, 0):
            if end > self._offset:
                break
            projection.recall(event)
            self._last = event
        return projection

    def _write(self) -> None:
        place = {"parent": self._parent, "offset": self._offset, "files": self._files}
        write_atomic(cursor_of(self._log), json.dumps(place))

    def _read(self) -> None:
        try:
            saved = json.loads(cursor_of(self._log).read_bytes())
            self._parent, self._offset = str(saved["parent"]), int(saved["offset"])
            self._files = [int(place) for place in saved["files"]]
        except (OSError, ValueError, LookupError, TypeError):
            self._parent, self._offset, self._files = "", 0, []


class _Lines:
    """Counts the whole lines of a file that grows; each part of it is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = self._count = 0
        self._lock = threading.Lock()

    def all(self) -> int:
        """As far as the file can be read."""
        with self._lock:
            part = self._bytes(self._at, None)
            whole = part[: part.rfind(b"\n") + 1]
            self._at, self._count = self._at + len(whole), self._count + whole.count(b"\n")
            return self._count

    def before(self, offset: int) -> int:
        """Those before a place."""
        return self._bytes(0, offset).count(b"\n")

    def _bytes(self, start: int, end: int | None) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                return file.read() if end is None else file.read(end - start)
        except OSError:
            return b""
