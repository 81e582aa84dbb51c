"""How far a sweep is: at work, interrupted or finished, and how long each stage took."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reid_tune.errors import InputError
from reid_tune.journal.event_log import Event, read_events
from reid_tune.journal.journal import EVENTS
from reid_tune.journal.state import STAGES, SweepState, replay

__all__ = ["Progress", "StageTime", "is_driver_running", "describe_progress", "sweep_progress", "read_sweep"]


State = Literal["running", "interrupted", "ended", "finished", "elsewhere"]


@dataclass
class StageTime:
    """A stage that has begun: when, in seconds since the epoch, and the seconds that drivers worked on it."""

    name: str
    started: float
    seconds: float = 0.0
    done: bool = False


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands.

    Attributes:
        state: `ended` is a sweep that was to end early; `elsewhere` one whose driver is, or was, on another host.
        stage: The one at work, else the last that has begun; empty before the first.
        host: Of the last driver.
        last: Time of the last event, seconds since the epoch.
    """

    state: State
    stage: str
    host: str
    stages: tuple[StageTime, ...]
    last: float

    def __str__(self) -> str:
        return describe_progress(self.state, self.stage, self.host)


def describe_progress(state: State, stage: str, host: str) -> str:
    """A sweep's state in words."""
    stage = stage or "the start"
    return {
        "running": f"running: {stage}",
        "interrupted": f"interrupted at {stage}",
        "ended": f"ended after {stage}",
        "finished": "finished",
        "elsewhere": f"at {stage} on {host}",
    }[state]


def sweep_progress(events: Iterable[Event]) -> Progress:
    """What a sweep's events say of its progress, and whether their driver is still a process of this host.

    The time between the last event of a driver and the start of the next one belongs to no stage.
    """
    stages: dict[str, StageTime] = {}
    at: StageTime | None = None
    driver: Event = {}
    last = 0.0
    for event in events:
        kind, time = event["kind"], event["time"]
        if at is not None and kind != "driver":
            at.seconds += max(0.0, time - last)
        if kind == "driver":
            driver, at = event, None
        elif kind == "reopened":
            stages = {name: stage for name, stage in stages.items() if name not in event["stages"]}
        elif kind == "stage" and event["state"] == "started":
            at = stages.setdefault(event["stage"], StageTime(event["stage"], time))
        elif kind == "stage":
            stages.setdefault(event["stage"], StageTime(event["stage"], time)).done = True
            at = None
        last = time
    order = tuple(stages.values())
    undone = [stage.name for stage in order if not stage.done]
    stage = undone[-1] if undone else order[-1].name if order else ""
    return Progress(_state(order, bool(undone), driver), stage, driver.get("host", ""), order, last)


def _state(stages: tuple[StageTime, ...], undone: bool, driver: Event) -> State:
    if any(stage.name == STAGES[-1] and stage.done for stage in stages):
        return "finished"
    working = is_driver_running(driver)
    if working:
        return "running"
    if stages and not undone:
        return "ended"
    return "interrupted" if working is False else "elsewhere"


def is_driver_running(driver: Event) -> bool | None:
    """Whether the process that a `driver` event names still runs its command; None where it is on another host.

    The process that asks is never the one: it has come to the end of its sweep, or was given the number anew.
    """
    if driver.get("host", socket.gethostname()) != socket.gethostname():
        return None
    pid = driver.get("pid")
    if pid is None or pid == os.getpid():
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return False
    arguments = driver.get("command", [])[1:]
    return words[len(words) - len(arguments) :] == arguments and bool(words)


def read_sweep(folder: Path) -> tuple[SweepState, Progress]:
    """State and progress of the sweep in a folder.

    Raises:
        InputError: the folder has no log of a sweep, or a damaged one, or the sweep has not begun.
    """
    path = folder / EVENTS
    if not path.is_file():
        raise InputError(f"{folder} holds no sweep: it has no {EVENTS}.")
    try:
        events = read_events(path)
        state, found = replay(events), sweep_progress(events)
        if state.header:
            _require_known_fields(state)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    except (LookupError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path} is damaged, or no log of a sweep: its events lack what they should have.") from None
    if not state.header:
        raise InputError(f"the sweep {folder.name} has not begun: {path} is empty.")
    return state, found


def _require_known_fields(state: SweepState) -> None:
    header, sweep = state.header, state.header["sweep"]
    str(header["name"]), float(header["time"]), dict(header["spec"]), int(sweep["budget"]["trials"])
    state.finished()
