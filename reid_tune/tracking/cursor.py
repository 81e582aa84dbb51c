"""The place in a log up to which a store has it."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

from reid_tune.events.log import Event, read_events_from
from reid_tune.files import write_atomic
from reid_tune.tracking.projection import HEADERS, Description, Projection
from reid_tune.tracking.store import client, one_line, refused

__all__ = ["CURSOR", "Cursor"]

CURSOR = "tracking.cursor.json"
TOGETHER = 100  # events at most between two records of the place


class Cursor:
    """Sends the events behind the place, which is kept beside the log in the file `CURSOR`.

    Args:
        describe: Makes what describes the log to readers of the parent run.

    Attributes:
        offset: The place, in bytes.
        refusal: The last thing that the store has refused for good, in one line, or None.
    """

    def __init__(self, log: Path, uri: str, describe: Callable[[], Description] | None) -> None:
        self.refusal: str | None = None
        self._log, self._uri, self._description = Path(log), uri, describe
        self._file = self._log.with_name(CURSOR)
        self._projection: Projection | None = None
        self._parent, self.offset = self._read()
        self._last: Event = {}
        self._restored = -1

    def lag(self) -> int:
        """Whole events behind the place."""
        if not self._log.exists():
            return 0
        with self._log.open("rb") as file:
            file.seek(self.offset)
            return file.read().count(b"\n")

    def send(self, stop: threading.Event) -> int:
        """Send events until the log ends or `stop` is set; the place stays before the first that could not be sent.

        What somebody has deleted in the store meanwhile is brought back, with everything in it.
        """
        sent = 0
        while not stop.is_set():
            self._projection = projection = self._projection or self._connect()
            if projection is None:
                return 0
            try:
                count = self._send_some(projection)
                if not count:
                    self._describe(projection)
            except Exception as error:
                self._projection = None  # It has taken in what is to be sent again.
                if self.offset <= self._restored or not projection.lost(error):
                    raise
                self.refusal = f"what somebody has deleted there was brought back ({one_line(error)})"
                self._restored, self._parent = self.offset, ""
                continue
            sent += count
            if not count:
                break
        return sent

    def close(self) -> None:
        """End what is open in a log that nobody writes any more, as of its last event."""
        if self._projection and self._last and self._last["kind"] != "closed":
            self._projection.apply({"kind": "closed", "time": self._last["time"], "status": "KILLED"})

    def _describe(self, projection: Projection) -> None:
        try:
            projection.describe()
        except (LookupError, TypeError, ValueError) as error:  # Of an odd log, whose metrics matter more.
            self.refusal = one_line(error)

    def _send_some(self, projection: Projection) -> int:
        count, offset = 0, self.offset
        for event, end in read_events_from(self._log, offset):
            try:
                projection.apply(event)
            except Exception as error:
                if not refused(error) or projection.lost(error):
                    raise
                self.refusal = one_line(error)
            self._last, offset, count = event, end, count + 1
            if count == TOGETHER:
                break
        if count:
            projection.flush()
            self.offset = offset
            write_atomic(self._file, json.dumps({"parent": projection.parent, "offset": offset}))
        return count

    def _connect(self) -> Projection | None:
        first = next(read_events_from(self._log, 0), None)
        if first is None or first[0]["kind"] not in HEADERS:
            return None
        description = self._description() if self._description else None
        projection = Projection(client(self._uri), first[0], self._log.parent, description)
        # Another store, or a store that was lost, has another parent run: it gets everything.
        if projection.parent != self._parent or self.offset > self._log.stat().st_size:
            self.offset = 0
        for event, end in read_events_from(self._log, 0):
            if end > self.offset:
                break
            projection.recall(event)
            self._last = event
        return projection

    def _read(self) -> tuple[str, int]:
        try:
            saved = json.loads(self._file.read_bytes())
            return str(saved["parent"]), int(saved["offset"])
        except (OSError, ValueError, LookupError, TypeError):
            return "", 0
