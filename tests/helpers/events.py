"""Events with the fields that most tests do not care about."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reid_tune.journal.events import AttemptStarted, DriverStarted, Event, SweepHeader, to_line


def sweep_header(**values: Any) -> SweepHeader:
    sweep = {"objective": {"metric": "mAP"}, "budget": {"trials": 1}}
    usual: dict[str, Any] = {"name": "s", "uid": "uid", "tracking_uri": "", "sweep": sweep, "spec": {}}
    return SweepHeader(**usual | values)


def driver_started(**values: Any) -> DriverStarted:
    """By default the driver is this process."""
    process = {"pid": os.getpid(), "host": socket.gethostname(), "user": None, "command": ["reid-tune"]}
    return DriverStarted(**process | {"resumed": False, "environment": {}} | values)


def attempt_started(**values: Any) -> AttemptStarted:
    """By default the attempt holds nothing."""
    return AttemptStarted(**{"attempt": 1, "cpus": 0, "gpus": 0.0} | values)


def write_events(path: Path, events: Iterable[Event]) -> None:
    """Append events to a log, as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.writelines(to_line(event) + b"\n" for event in events)
