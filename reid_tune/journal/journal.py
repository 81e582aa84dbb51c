"""The event log of a running sweep, together with the state that follows from it."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from reid_tune.errors import InfrastructureError
from reid_tune.files import find_partial_files
from reid_tune.journal.event_log import EVENTS, EventLog, read_events
from reid_tune.journal.events import Event, StageDone, StageStarted
from reid_tune.journal.lease import LEASE, Lease
from reid_tune.journal.state import SweepState, replay
from reid_tune.journal.sweep_store import SweepStore

__all__ = ["Journal"]


class Journal:
    """Write access to a sweep; every change goes through `emit`. A context manager, which holds the sweep's lease.

    Args:
        files: The sweep's files, or its folder.
        wait: Receives a line that says what is waited for.

    Attributes:
        earlier_events: Events that the log had before this process.
        state: State after all events.
        listeners: Functions that are called after each event, with the event and the state.

    Raises:
        InputError: Another driver is alive, or the folder cannot be written.
    """

    def __init__(self, files: SweepStore | Path, wait: Callable[[str], None] = lambda text: None) -> None:
        self.files = files if isinstance(files, SweepStore) else SweepStore(files)
        self._log = EventLog(self.folder / EVENTS)
        self._lease: Lease | None = None
        self._wait = wait
        self.listeners: list[Callable[[Event, SweepState], None]] = []
        self._leftovers: list[Path] = []
        self._size = 0  # of the log after the last event that this process has read or written
        self._read()

    @property
    def folder(self) -> Path:
        """The sweep's folder, or the driver's copy of it."""
        return self.files.folder

    @property
    def path(self) -> Path:
        """The log's file."""
        return self._log.path

    def emit(self, event: Event) -> None:
        """Record an event: first on disk, then in the state, then with the listeners.

        Raises:
            InfrastructureError: The disk is full, or another driver has taken over or written the log.
        """
        if self._lease:
            self._lease.require_held()
            self.files.require_synced()
        if self._log.size != self._size:
            raise InfrastructureError(
                f"another driver has written {self.path}: find it by {LEASE}, then continue with --resume auto."
            )
        is_stage = isinstance(event, StageStarted | StageDone)
        if is_stage:
            self.files.flush()  # The files that the event is about arrive before it.
        # As read from its line, so that this state equals the one that a replay computes.
        event = self._log.append(event)
        self._size = self._log.size
        self.state.apply(event)
        for listener in self.listeners:
            listener(event, self.state)
        if is_stage:
            self.files.flush()

    def __enter__(self) -> Self:
        try:
            self._lease = Lease(self.files.objects, self.files.lock, wait=self._wait)
            self.files.begin(self._lease)
            self._leftovers = find_partial_files(self.folder)
        except BaseException:  # Whatever ends the wait, Ctrl-C included: the log's lock is free again.
            self._release()
            raise
        self._read()  # Another driver may have written while this one waited.
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            for path in self._leftovers:  # Of killed processes: what others were writing at the start is complete now.
                path.unlink(missing_ok=True)
        try:
            self.files.end()
        finally:
            self._release()

    def _read(self) -> None:
        self._size = self._log.size  # before the events, so that none of another driver is missed
        self.earlier_events = read_events(self._log.path)
        self.state: SweepState = replay(self.earlier_events)

    def _release(self) -> None:
        if self._lease:
            self._lease.release()
        self._log.close()
