"""Sends an event log to MLflow in a thread that neither blocks the writer of the log nor raises errors into it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from reid_tune.errors import ReidTuneError
from reid_tune.imports import quick_imports
from reid_tune.journal.events import DriverEnded
from reid_tune.tracking.cursor import Cursor
from reid_tune.tracking.projection import Description
from reid_tune.tracking.store import one_line, open_client, translate_errors

__all__ = ["LogTarget", "SendResult", "Sender", "follow_log", "send_all", "send_remaining"]

_POLL_SECONDS = 0.5  # between two reads of the log
_MAX_RETRY_SECONDS = 30.0  # between two attempts at an unreachable store
_LATE_SECONDS = 10.0  # for which a reachable store may lack events before it counts as late
# Time that a store gets at the end of a log: in total, and without accepting anything. After Ctrl-C both are shorter,
# as a user is waiting.
_CLOSE_SECONDS, _STALL_SECONDS, _INTERRUPTED_SECONDS = 60.0, 8.0, 3.0


class Sender:
    """Sends the log `log_path` to the store `uri` as it grows; a new sender continues where the last one ended.

    Only one sender may follow a log at a time.

    Attributes:
        last_error: Description of the current problem in one line, or None.
    """

    def __init__(self, log_path: Path, uri: str, describe: Callable[[], Description] | None = None) -> None:
        # Two threads that import it at once can each see an incomplete module.
        with quick_imports():
            import mlflow  # noqa: F401

        self.last_error: str | None = None
        self._cursor = Cursor(log_path, uri, describe)
        self._has_failed = False  # at the last attempt
        self._complete_at = time.monotonic()  # when the store had all events for the last time
        self._closing = self._all_sent = False
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow-sender", daemon=True)
        self._thread.start()

    @property
    def has_sent_all(self) -> bool:
        """Whether the log has ended, and the store has all of it and has rejected nothing."""
        return self._all_sent and self._cursor.refusal is None

    @property
    def lag(self) -> int:
        """Number of the log's events, and of events with files, that the store does not have yet."""
        return self._cursor.lag()

    @property
    def lag_message(self) -> str:
        """Number of events that the store does not have yet, and the reason; empty while the store keeps up."""
        if not self._has_failed and time.monotonic() - self._complete_at < _LATE_SECONDS:
            return ""
        reason = f": {self.last_error}" if self._has_failed else ""
        return f"MLflow is {self.lag} events behind{reason}"

    def close(self, timeout: float, stall_timeout: float) -> bool:
        """Send the remaining events and end the thread; False if events remain, which `send_all` can send later.

        Args:
            timeout: Seconds in total.
            stall_timeout: Seconds in which the store accepts nothing.
        """
        self._closing = True
        self._wake.set()
        start = last_progress = time.monotonic()
        accepted = self._cursor.accepted
        while self._thread.is_alive() and time.monotonic() < min(start + timeout, last_progress + stall_timeout):
            self._thread.join(0.1)
            if self._cursor.accepted != accepted:
                accepted, last_progress = self._cursor.accepted, time.monotonic()
        self._stop.set()
        self._wake.set()
        return self._all_sent

    def _follow(self) -> None:
        pause = _POLL_SECONDS
        while not self._stop.is_set():
            closing = self._closing
            try:
                self._cursor.send(self._stop)
                self._has_failed, pause = False, _POLL_SECONDS
                self.last_error = self._cursor.refusal or self._cursor.repair
                if self._cursor.lag() == 0:
                    self._complete_at = time.monotonic()
                    if closing:
                        self._all_sent = True
                        return
            except Exception as error:  # An error of tracking must never end a sweep.
                self._has_failed, self.last_error = True, one_line(error)
                pause = min(2 * pause, _MAX_RETRY_SECONDS)
            self._wake.wait(_POLL_SECONDS if closing else pause)
            self._wake.clear()


@dataclass(frozen=True)
class LogTarget:
    """A log and the store that gets it.

    Attributes:
        log_path: Event log.
        uri: Address of the store.
        warn: Receives a sentence about a problem that remains at the end.
        sync_command: Command that sends the remaining events later.
        describe: See `Cursor`.
    """

    log_path: Path
    uri: str
    warn: Callable[[str], None]
    sync_command: str
    describe: Callable[[], Description] | None = None


@contextmanager
def follow_log(target: LogTarget, record_end: Callable[[DriverEnded], None]) -> Iterator[Sender]:
    """Send a log during the block, and record the driver's end after it.

    Args:
        record_end: Writes the last event into the log.
    """
    sender, end = Sender(target.log_path, target.uri, target.describe), DriverEnded(status="KILLED")
    try:
        yield sender
        end = DriverEnded(status="FINISHED")
    except Exception as error:
        end = DriverEnded(status="FAILED", reason=one_line(error))
        raise
    finally:
        with suppress(ReidTuneError, OSError):  # The disk is full, or another driver has taken over.
            record_end(replace(end, time=time.time()))
        interrupted = end.status == "KILLED"
        _close(sender, target, *((_INTERRUPTED_SECONDS,) * 2 if interrupted else (_CLOSE_SECONDS, _STALL_SECONDS)))


def send_remaining(target: LogTarget) -> None:
    """Send what the last sender of a log that has ended could not send, for as long as `follow_log` does at the end."""
    _close(Sender(target.log_path, target.uri, target.describe), target, _CLOSE_SECONDS, _STALL_SECONDS)


def _close(sender: Sender, target: LogTarget, timeout: float, stall_timeout: float) -> None:
    if not sender.close(timeout, stall_timeout):
        reason = sender.last_error or "it is slow"
        target.warn(f"{sender.lag} events are not in MLflow ({reason}): send them with {target.sync_command}")
    elif sender.last_error:
        target.warn(f"MLflow: {sender.last_error}")


@dataclass(frozen=True)
class SendResult:
    """Result of `send_all`.

    Attributes:
        events: Number of events that the store has accepted.
        refusal: The last permanent refusal by the store in one line, or None.
        repair: Sentence about runs that were deleted in the store and are there again, or None.
    """

    events: int
    refusal: str | None
    repair: str | None = None


def send_all(
    log_path: Path, uri: str, describe: Callable[[], Description] | None = None, closed: bool = False
) -> SendResult:
    """Send all events that no sender has sent yet.

    Args:
        describe: See `Cursor`.
        closed: Whether no driver writes the log any more: runs that are unfinished in it were interrupted.

    Raises:
        InputError: the file is not an event log.
        InfrastructureError: the store does not answer; the events that it has accepted are not sent again.
    """
    with translate_errors(uri):
        open_client(uri)
        cursor = Cursor(log_path, uri, describe)
        events = cursor.send(threading.Event())
        if closed:
            cursor.close()
        return SendResult(events, cursor.refusal, cursor.repair)
