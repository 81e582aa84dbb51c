"""Sends an event log to MLflow from a thread that neither blocks who writes it nor raises into it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from reid_tune.errors import ReidTuneError
from reid_tune.journal.events import DriverEnded
from reid_tune.tracking.cursor import Cursor
from reid_tune.tracking.projection import Description
from reid_tune.tracking.store import one_line, translate_errors

__all__ = ["Sender", "SendResult", "follow_log", "send_all"]

POLL = 0.5  # seconds between two looks at the log
LONGEST_WAIT = 30.0  # seconds between two attempts at a store that is away
LATE = 10.0  # seconds behind which a store that takes events counts as late
# Seconds that the end of a log waits for a store, those of them while it takes nothing, and both where a user waits.
SENDING, PATIENCE, HURRY = 60.0, 8.0, 3.0


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
        """Events of the log, and files named in it, that the store does not have yet."""
        return self._cursor.lag()

    @property
    def words(self) -> str:
        """How far the store is behind, and why; empty where it keeps up."""
        if not self._away and time.monotonic() - self._in_step < LATE:
            return ""
        why = f": {self.last_error}" if self._away else ""
        return f"MLflow is {self.lag} events behind{why}"

    def close(self, timeout: float, patience: float) -> bool:
        """Send the rest and end; False where some of it is left, which `send_all` can send later.

        Args:
            timeout: Seconds for all of it.
            patience: Seconds that a store may take nothing.
        """
        self._closing = True
        self._wake.set()
        end, seen, since = time.monotonic() + timeout, self._cursor.taken, time.monotonic()
        while self._thread.is_alive() and time.monotonic() < min(end, since + patience):
            self._thread.join(0.1)
            if self._cursor.taken != seen:
                seen, since = self._cursor.taken, time.monotonic()
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


@contextmanager
def follow_log(
    log: Path,
    uri: str,
    close: Callable[[DriverEnded], None],
    say: Callable[[str], None],
    again: str,
    describe: Callable[[], Description] | None = None,
) -> Iterator[Sender]:
    """Send a log during the block, and have it closed as the block ends.

    Args:
        close: Function that writes the last event into the log.
        say: Told in a sentence what is wrong at the end.
        again: The command that sends what is left.
    """
    sender, end = Sender(log, uri, describe), DriverEnded(status="KILLED")
    try:
        yield sender
        end = DriverEnded(status="FINISHED")
    except Exception as error:
        end = DriverEnded(status="FAILED", reason=one_line(error))
        raise
    finally:
        with suppress(ReidTuneError, OSError):  # The disk is full, or another driver has taken over.
            close(replace(end, time=time.time()))
        killed = end.status == "KILLED"
        if not sender.close(HURRY if killed else SENDING, HURRY if killed else PATIENCE):
            say(f"{sender.lag} events are not in MLflow ({sender.last_error or 'it is slow'}): send them with {again}")
        elif sender.last_error:
            say(f"MLflow: {sender.last_error}")


@dataclass(frozen=True)
class SendResult:
    """How many events a store has got, and the last thing that it has refused for good, or None."""

    events: int
    refusal: str | None


def send_all(
    log_path: Path, uri: str, describe: Callable[[], Description] | None = None, closed: bool = False
) -> SendResult:
    """Send what no sender has sent yet.

    Args:
        closed: Whether nobody writes the log any more: a run that is still open in it was cut short.

    Raises:
        InputError: the file is not an event log.
        InfrastructureError: the store does not answer; what it has got already is remembered.
    """
    with translate_errors(uri):
        cursor = Cursor(log_path, uri, describe)
        events = cursor.send(threading.Event())
        if closed:
            cursor.close()
        return SendResult(events, cursor.refusal)
