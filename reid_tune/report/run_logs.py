"""Logs of a sweep's runs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS, read_events_from
from reid_tune.journal.events import DriverStarted
from reid_tune.journal.progress import is_driver_running
from reid_tune.journal.state import SweepState
from reid_tune.journal.sweep_lookup import load_state, sweep_folder
from reid_tune.report.formatting import format_score, shorten

__all__ = ["LogFollower", "logs_table", "read_log"]

_POLL_SECONDS = 0.5
_TAIL_BYTES = 4096  # end of a log that is searched for its last line
_LINE_LENGTH = 60  # characters of the last line that are shown


def logs_table(name: str, storage: str) -> Table:
    """Return a table of a sweep's runs with the beginning of the last line of each log.

    Raises:
        InputError: The sweep does not exist, or its log is damaged.
    """
    state, folder = load_state(name, storage), sweep_folder(name, storage)
    table = Table()
    for column in ("run", "state", "epoch", f"{state.metric} %", "last line"):
        is_text = column in ("run", "state", "last line")
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    for run in state.runs.values():
        line = _last_line(folder / run.name / "log.txt")
        score = format_score(run.last(state.metric))
        table.add_row(*map(Text, (run.name, run.state, str(run.epoch), score, line)))
    return table


def _last_line(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return shorten(next((line for line in reversed(lines) if line.strip()), ""), _LINE_LENGTH)


def read_log(
    name: str, run: str, storage: str, follow: bool, refresh: Callable[[], object] = lambda: None
) -> Iterator[str]:
    """Yield the text of a run's log in pieces; with `follow` until the run ends.

    Args:
        refresh: Function that is called before each look for new text.

    Raises:
        InputError: The sweep or the run does not exist, or the run has no log yet and is not followed.
    """
    state = load_state(name, storage)
    if run not in state.runs:
        raise InputError(f"the sweep {name} has no run {run}; {_list_runs(state)}.")
    follower = LogFollower(sweep_folder(name, storage), run)
    if not follow and not follower.log.is_file():
        raise InputError(f"{run} of the sweep {name} has printed nothing so far: {follower.log} does not exist.")
    if not follow:
        return follower.new_text()

    def pause() -> None:
        time.sleep(_POLL_SECONDS)
        refresh()

    return follower.follow(pause)


def _list_runs(state: SweepState) -> str:
    numbers = [trial.number for trial in state.trials]
    others = [name for name in state.runs if not name.startswith("trials/")]
    trials = f"its trials are {numbers[0]} to {numbers[-1]}" if numbers else "no trial has started"
    return trials + (f", its other runs {', '.join(others)}" if others else "")


class LogFollower:
    """A run's log and the event log of its sweep, each read from where the last read ended.

    Attributes:
        log: The run's log file.
        state: The sweep by the events that were read.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.run = run
        self.log = folder / run / "log.txt"
        self.state = SweepState()
        self._events = folder / EVENTS
        self._driver: DriverStarted | None = None
        self._events_offset = self._log_offset = 0
        self.update()

    def update(self) -> None:
        """Apply the new events."""
        for event, offset in read_events_from(self._events, self._events_offset):
            self._events_offset = offset
            self.state.apply(event)
            if isinstance(event, DriverStarted):
                self._driver = event

    def is_running(self) -> bool:
        """Whether more text may come: the run has not ended, and its driver runs or is on another host."""
        return self.state.runs[self.run].state == "running" and is_driver_running(self._driver) is not False

    def new_text(self) -> Iterator[str]:
        """Yield the text since the last read."""
        if self.log.is_file():
            with self.log.open("rb") as file:
                file.seek(self._log_offset)
                while block := file.read(1 << 20):
                    self._log_offset += len(block)
                    yield block.decode(errors="replace")

    def follow(self, pause: Callable[[], None]) -> Iterator[str]:
        """Yield all text until the run has ended.

        Args:
            pause: Function that is called between two reads.
        """
        is_running = True
        while is_running:
            # Asked before the log is read, so that its last lines are not missed.
            is_running = self.is_running()
            yield from self.new_text()
            if is_running:
                pause()
                self.update()
