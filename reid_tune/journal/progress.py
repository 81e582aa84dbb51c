"""Progress of a sweep: running, interrupted or finished, and the time of each stage."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reid_tune.errors import InputError
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import DriverStarted, Event, StageDone, StagesReopened, StageStarted
from reid_tune.journal.stages import STAGES
from reid_tune.journal.state import SweepState, replay

__all__ = ["Progress", "StageTime", "describe_progress", "is_driver_running", "read_sweep", "sweep_progress"]


State = Literal["running", "interrupted", "ended", "finished", "elsewhere"]


@dataclass
class StageTime:
    """Time of a stage that has started.

    Attributes:
        started: Time of its first start, in seconds since the epoch.
        seconds: Seconds that drivers worked on it.
    """

    name: str
    started: float
    seconds: float = 0.0
    done: bool = False


@dataclass(frozen=True)
class Progress:
    """Progress of a sweep.

    Attributes:
        state: `ended` is a sweep that was to end early; `elsewhere` one whose driver is, or was, on another host.
        stage: The stage in progress, otherwise the last one that has started; empty before the first.
        host: Host of the last driver.
        last: Time of the last event, in seconds since the epoch.
    """

    state: State
    stage: str
    host: str
    stages: tuple[StageTime, ...]
    last: float

    def __str__(self) -> str:
        return describe_progress(self.state, self.stage, self.host)


def describe_progress(state: State, stage: str, host: str) -> str:
    """Return a sweep's state as a phrase."""
    stage = stage or "the start"
    return {
        "running": f"running: {stage}",
        "interrupted": f"interrupted at {stage}",
        "ended": f"ended after {stage}",
        "finished": "finished",
        "elsewhere": f"at {stage} on {host}",
    }[state]


def sweep_progress(events: Iterable[Event]) -> Progress:
    """Return the progress by a sweep's events, and by whether their driver is still a process of this host.

    The time between the last event of a driver and the start of the next one belongs to no stage.
    """
    stages: dict[str, StageTime] = {}
    current: StageTime | None = None
    driver: DriverStarted | None = None
    last_time = 0.0
    for event in events:
        if current is not None and not isinstance(event, DriverStarted):
            current.seconds += max(0.0, event.time - last_time)
        match event:
            case DriverStarted():
                driver, current = event, None
            case StagesReopened():
                stages = {name: stage for name, stage in stages.items() if name not in event.stages}
            case StageStarted():
                current = stages.setdefault(event.stage, StageTime(event.stage, event.time))
            case StageDone():
                stages.setdefault(event.stage, StageTime(event.stage, event.time)).done = True
                current = None
        last_time = event.time
    order = tuple(stages.values())
    undone = [stage.name for stage in order if not stage.done]
    stage = undone[-1] if undone else order[-1].name if order else ""
    return Progress(_state(order, bool(undone), driver), stage, driver.host if driver else "", order, last_time)


def _state(stages: tuple[StageTime, ...], undone: bool, driver: DriverStarted | None) -> State:
    if any(stage.name == STAGES[-1] and stage.done for stage in stages):
        return "finished"
    running = is_driver_running(driver)
    if running:
        return "running"
    if stages and not undone:
        return "ended"
    return "interrupted" if running is False else "elsewhere"


def is_driver_running(driver: DriverStarted | None) -> bool | None:
    """Return whether the process of a driver still runs its command; None if it is on another host.

    The process that asks never counts as the driver: it has come to the end of its sweep, or has the process id of a
    driver that ended.
    """
    if driver is None:
        return False
    if driver.host != socket.gethostname():
        return None
    if driver.pid == os.getpid():
        return False
    try:
        words = Path(f"/proc/{driver.pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return False
    # The log never has the encryption key, which may be on the command line.
    words = [word for word in words if word == "encryption_key=" or not word.startswith("encryption_key=")]
    arguments = driver.command[1:]
    return words[len(words) - len(arguments) :] == arguments and bool(words)


def read_sweep(folder: Path) -> tuple[SweepState, Progress]:
    """Return state and progress of the sweep in a folder.

    Raises:
        InputError: The folder has no log of a sweep, or a damaged one, or the sweep has not started.
    """
    path = folder / EVENTS
    if not path.is_file():
        raise InputError(f"{folder} holds no sweep: it has no {EVENTS}.")
    try:
        events = read_events(path)
        state, progress = replay(events), sweep_progress(events)
        if state.first_event:
            _require_known_fields(state)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(f"{path} is damaged, or not the log of a sweep: its events do not fit together.") from None
    if not state.first_event:
        raise InputError(f"the sweep {folder.name} has not started: {path} has no header.")
    return state, progress


def _require_known_fields(state: SweepState) -> None:
    """Read what every reader of a sweep needs of the contents that are plain data."""
    int(state.header.sweep["budget"]["trials"])
    state.finished()
