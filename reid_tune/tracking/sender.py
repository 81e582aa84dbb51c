"""Sends an event log to MLflow from a thread that neither blocks who writes it nor raises into it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from reid_tune.tracking.cursor import Cursor
from reid_tune.tracking.projection import Description
from reid_tune.tracking.store import answering, one_line

__all__ = ["Sender", "send_all"]

POLL = 0.5  # seconds between two looks at the log
LONGEST_WAIT = 30.0  # seconds between two attempts at a store that is away
LATE = 10.0  # seconds behind which a store that takes events counts as late


class Sender:
    """A cursor on the log `log_path` that follows it into the store `uri`; a new one goes on where the last ended.

    `last_error` is one line about what is wrong, or None. Only one sender may follow a log at a time.
    """

    def __init__(self, log_path: Path, uri: str, describe: Callable[[], Description] | None = None) -> None:
        # Two threads that import it at once can each see a half of it.
        import mlflow  # noqa: F401

        self.last_error: str | None = None
        self._cursor = Cursor(log_path, uri, describe)
        self._away = False
        self._in_step = time.monotonic()
        self._closing = self._all_sent = False
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow-sender", daemon=True)
        self._thread.start()

    @property
    def lag(self) -> int:
        """Events of the log that the store does not have yet."""
        return self._cursor.lag()

    @property
    def words(self) -> str:
        """What is wrong with the store, and how far it is behind; empty where it keeps up."""
        late = self._away or time.monotonic() - self._in_step > LATE
        behind = f"{self.lag} events behind" if late else ""
        return ": ".join(filter(None, ("MLflow", behind, self.last_error))) if behind or self.last_error else ""

    def close(self, timeout: float, patience: float) -> bool:
        """Send the rest and end; False where some of it is left, which `send_all` can send later.

        Args:
            timeout: Seconds for all of it.
            patience: Seconds that a store may take for nothing.
        """
        self._closing = True
        self._wake.set()
        end, seen, since = time.monotonic() + timeout, self._cursor.offset, time.monotonic()
        while self._thread.is_alive() and time.monotonic() < min(end, since + patience):
            self._thread.join(0.1)
            if self._cursor.offset != seen:
                seen, since = self._cursor.offset, time.monotonic()
        self._stop.set()
        self._wake.set()
        return self._all_sent

    def _follow(self) -> None:
        wait = POLL
        while not self._stop.is_set():
            closing = self._closing
            try:
                self._cursor.send(self._stop)
                self._away, self.last_error, wait = False, self._cursor.refusal, POLL
                if self._cursor.lag() == 0:
                    self._in_step = time.monotonic()
                    if closing:
                        self._all_sent = True
                        return
            except Exception as error:  # whatever it is, tracking must not end a sweep
                self._away, self.last_error, wait = True, one_line(error), min(2 * wait, LONGEST_WAIT)
            self._wake.wait(POLL if closing else wait)
            self._wake.clear()


def send_all(log_path: Path, uri: str, describe: Callable[[], Description] | None = None, closed: bool = False) -> int:
    """Send what no sender has sent yet, and return the number of events.

    Args:
        closed: Whether nobody writes the log any more: a run that is still open in it was cut short.

    Raises:
        InputError: the file is not an event log.
        InfrastructureError: the store does not answer; what it has got already is remembered.
    """
    with answering(uri):
        cursor = Cursor(log_path, uri, describe)
        sent = cursor.send(threading.Event())
        if closed:
            cursor.close()
        return sent
