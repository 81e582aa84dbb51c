"""The log of a running sweep together with the state that it implies."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

from reid_tune.journal.event_log import EVENTS, EventLog, read_events
from reid_tune.journal.events import Event, StageDone, StageStarted
from reid_tune.journal.lease import Lease
from reid_tune.journal.state import SweepState, replay
from reid_tune.journal.sweep_store import SweepStore

__all__ = ["EVENTS", "Journal"]


class Journal:
    """Every change of a sweep goes through `emit`: first to disk, then into the state, then to the listeners."""

    def __init__(self, where: SweepStore | Path, wait: Callable[[str], None] = lambda text: None) -> None:
        self.files = where if isinstance(where, SweepStore) else SweepStore(where)
        self._log = EventLog(self.folder / EVENTS)
        self._lease: Lease | None = None
        self._wait = wait
        self.past = read_events(self._log.path)
        self.state: SweepState = replay(self.past)
        self.listeners: list[Callable[[Event, SweepState], None]] = []

    @property
    def folder(self) -> Path:
        """The sweep's folder, or the driver's copy of it."""
        return self.files.folder

    @property
    def path(self) -> Path:
        """The log's file."""
        return self._log.path

    def emit(self, event: Event) -> None:
        """Record an event.

        Raises:
            InfrastructureError: The disk is full, or another driver has taken over.
        """
        if self._lease:
            self._lease.require()
            self.files.require_synced()
        is_stage = isinstance(event, StageStarted | StageDone)
        if is_stage:
            self.files.flush()  # The files that it is about are there before it.
        # As read from its line, so that this state is the one that a replay makes.
        event = self._log.append(event)
        self.state.apply(event)
        for listener in self.listeners:
            listener(event, self.state)
        if is_stage:
            self.files.flush()

    def __enter__(self) -> Self:
        try:
            self._lease = Lease(self.files.objects, self.files.lock, wait=self._wait)
            self.files.begin(self._lease)
        except BaseException:  # Whatever ends the wait, Ctrl-C too: the log's lock is free again.
            self._let_go()
            raise
        # Another driver may have written on while this one waited.
        self.past = read_events(self._log.path)
        self.state = replay(self.past)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.files.end()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._lease:
            self._lease.release()
        self._log.close()
