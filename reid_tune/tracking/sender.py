"""Sends a sweep's event log to MLflow from a thread that neither blocks the sweep nor raises into it."""

import json
import threading
import time
from pathlib import Path

from reid_tune.events.log import read_events_from
from reid_tune.files import write_atomic
from reid_tune.tracking.projection import Projection
from reid_tune.tracking.store import answering, client, one_line, refused

__all__ = ["CURSOR", "Sender", "send_all"]

CURSOR = "tracking.cursor.json"
POLL = 0.5  # seconds between two looks at the log
LONGEST_WAIT = 30.0  # seconds between two attempts at a store that is away


class Sender:
    """A cursor on the log `log_path` that follows it into the store `uri`; a new one goes on where the last ended.

    `last_error` is one line about what is wrong, or None. Only one sender may follow a log at a time.
    """

    def __init__(self, log_path: Path, uri: str) -> None:
        # Two threads that import it at once can each see a half of it.
        import mlflow  # noqa: F401

        self.last_error: str | None = None
        self._cursor = _Cursor(log_path, uri)
        self._status: str | None = None
        self._closing = self._all_sent = False
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow-sender", daemon=True)
        self._thread.start()

    @property
    def lag(self) -> int:
        """Events of the log that the store does not have yet."""
        return self._cursor.lag()

    def finish(self, status: str = "FINISHED") -> None:
        """End the parent run as FINISHED, FAILED or KILLED once all events are sent."""
        self._status = status

    def close(self, timeout: float) -> bool:
        """Send the rest and end; False where `timeout` seconds did not suffice: `send_all` can do it later."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        self._stop.set()
        self._wake.set()
        return self._all_sent

    def _follow(self) -> None:
        wait = POLL
        while not self._stop.is_set():
            closing = self._closing
            try:
                self._cursor.send(self._stop)
                self._finish_parent()
                self.last_error, wait = self._cursor.refusal, POLL
                if closing and self._cursor.lag() == 0:
                    self._all_sent = True
                    return
            except Exception as error:  # whatever it is, tracking must not end a sweep
                self.last_error, wait = one_line(error), min(2 * wait, LONGEST_WAIT)
            self._wake.wait(POLL if closing else wait)
            self._wake.clear()

    def _finish_parent(self) -> None:
        if self._status and self._cursor.projection and self._cursor.lag() == 0:
            self._cursor.projection.finish(self._status, round(time.time() * 1000))
            self._status = None


def send_all(log_path: Path, uri: str) -> int:
    """Send what no sender has sent yet, and return the number of events.

    Raises:
        InputError: the file is not an event log.
        InfrastructureError: the store does not answer; what it has got already is remembered.
    """
    with answering(uri):
        return _Cursor(log_path, uri).send(threading.Event())


class _Cursor:
    """The place in a log up to which a store has it, kept beside the log in the file `CURSOR`."""

    def __init__(self, log_path: Path, uri: str) -> None:
        self.projection: Projection | None = None
        self.refusal: str | None = None
        self._log, self._uri = Path(log_path), uri
        self._file = self._log.with_name(CURSOR)
        self._parent, self._offset = self._read()

    def lag(self) -> int:
        """Whole events behind the cursor."""
        if not self._log.exists():
            return 0
        with self._log.open("rb") as file:
            file.seek(self._offset)
            return file.read().count(b"\n")

    def send(self, stop: threading.Event) -> int:
        """Send events until the log ends or `stop` is set; the cursor stays at the first one that could not be sent."""
        before, sent = self._offset, 0
        projection = self.projection = self.projection or self._connect()
        if projection is None:
            return 0
        try:
            for event, end in read_events_from(self._log, self._offset):
                if stop.is_set():
                    break
                try:
                    projection.apply(event)
                except Exception as error:
                    if not refused(error):
                        raise
                    self.refusal = one_line(error)
                self._offset, sent = end, sent + 1
        finally:
            if self._offset != before:
                write_atomic(self._file, json.dumps({"parent": projection.parent, "offset": self._offset}))
        return sent

    def _connect(self) -> Projection | None:
        first = next(read_events_from(self._log, 0), None)
        if first is None or first[0]["kind"] != "sweep":
            return None
        projection = Projection(client(self._uri), first[0], self._log.parent)
        # Another store, or a store that was lost, has another parent run: it gets everything.
        if projection.parent != self._parent or self._offset > self._log.stat().st_size:
            self._offset = 0
        for event, end in read_events_from(self._log, 0):
            if end > self._offset:
                break
            projection.drop(event)
        return projection

    def _read(self) -> tuple[str, int]:
        try:
            saved = json.loads(self._file.read_bytes())
            return str(saved["parent"]), int(saved["offset"])
        except (OSError, ValueError, LookupError, TypeError):
            return "", 0
