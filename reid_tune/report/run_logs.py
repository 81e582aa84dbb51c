"""What the runs of a sweep have printed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from reid_tune.errors import InputError
from reid_tune.journal.event_log import read_events_from
from reid_tune.journal.events import DriverStarted
from reid_tune.journal.journal import EVENTS
from reid_tune.journal.progress import is_driver_running
from reid_tune.journal.state import SweepState
from reid_tune.journal.store import load_state, sweep_folder
from reid_tune.tables import format_percent

__all__ = ["LogFollower", "logs_table", "read_log"]

_PAUSE = 0.5  # seconds between two looks at a log
_TAIL = 4096  # bytes in which the last line is looked for
_LINE = 60  # characters of it that are shown


def logs_table(name: str, storage: str) -> Table:
    """The runs of a sweep with the beginning of the last line that each has printed.

    Raises:
        InputError: there is no such sweep, or it is damaged.
    """
    state, folder = load_state(name, storage), sweep_folder(name, storage)
    table = Table()
    for column in ("run", "state", "epoch", f"{state.metric} %", "last line"):
        numbers = column not in ("run", "state", "last line")
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for run in state.runs.values():
        value = run.last(state.metric)
        score = "" if value is None else format_percent(value)
        line = _last_line(folder / run.name / "log.txt")
        table.add_row(*map(Text, (run.name, run.state, str(run.epoch), score, line)))
    return table


def _last_line(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    line = next((line for line in reversed(lines) if line.strip()), "")
    return line if len(line) <= _LINE else line[: _LINE - 1] + "\N{HORIZONTAL ELLIPSIS}"


def read_log(
    name: str, run: str, storage: str, follow: bool, refresh: Callable[[], object] = lambda: None
) -> Iterator[str]:
    """What a run has printed, piece by piece; with `follow` until it ends.

    Args:
        refresh: Called before each look at what is new.

    Raises:
        InputError: there is no such sweep or run, or the run has printed nothing yet and is not followed.
    """
    state = load_state(name, storage)
    if run not in state.runs:
        raise InputError(f"the sweep {name} has no run {run}; {_known(state)}.")
    watched = LogFollower(sweep_folder(name, storage), run)
    if not follow and not watched.log.is_file():
        raise InputError(f"{run} of the sweep {name} has printed nothing so far: there is no {watched.log}.")
    if not follow:
        return watched.new_text()

    def pause() -> None:
        time.sleep(_PAUSE)
        refresh()

    return watched.follow(pause)


def _known(state: SweepState) -> str:
    numbers = [trial.number for trial in state.trials]
    others = [name for name in state.runs if not name.startswith("trials/")]
    trials = f"its trials are {numbers[0]} to {numbers[-1]}" if numbers else "no trial was begun"
    return trials + (f", its other runs {', '.join(others)}" if others else "")


class LogFollower:
    """A run's log and the log of its sweep, both read on from where they were left."""

    def __init__(self, folder: Path, run: str) -> None:
        self.run = run
        self.log = folder / run / "log.txt"
        self.state = SweepState()
        self._events = folder / EVENTS
        self._driver: DriverStarted | None = None
        self._read = self._shown = 0
        self.update()

    def update(self) -> None:
        """Take in the events since the last time."""
        for event, offset in read_events_from(self._events, self._read):
            self._read = offset
            self.state.apply(event)
            if isinstance(event, DriverStarted):
                self._driver = event

    def running(self) -> bool:
        """Whether more may come: the run has not ended, and its driver is at work or on another host."""
        return self.state.runs[self.run].state == "running" and is_driver_running(self._driver) is not False

    def new_text(self) -> Iterator[str]:
        """What was printed since the last time."""
        if self.log.is_file():
            with self.log.open("rb") as file:
                file.seek(self._shown)
                while block := file.read(1 << 20):
                    self._shown += len(block)
                    yield block.decode(errors="replace")

    def follow(self, pause: Callable[[], None]) -> Iterator[str]:
        """What was printed and what will be, until the run has ended."""
        more = True
        while more:
            # Asked before the log is read, so that its last lines are not missed.
            more = self.running()
            yield from self.new_text()
            if more:
                pause()
                self.update()
