"""A sweep whose clock jumps by days in both directions: that of Python in its processes, never the machine's own."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeSweep
from .sweeps import ChaosSweep, wait_for_suspension
from .table import Tried

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]

DAY = 86_400
APPEND = "driver after reid_tune.journal.event_log:EventLog.append"
# The events after which the clock jumps, and to which difference from the machine's clock, in days. Then the driver is
# killed, and continued on a clock that is earlier than its lease and its log.
JUMPS = {"attempt-trials/0000": 1, "attempt-trials/0001": -1, "stage_started-confirm": 1}
KILL = f"{APPEND} attempt-refit/winner"
LAST = -1


def test_a_clock_that_jumps_by_days_changes_nothing(make_sweep: MakeSweep, calm: dict[str, Any], tried: Tried) -> None:
    sweep = make_sweep()
    clock = sweep.folder / "clock"
    _set_clock(clock, 0)
    sweep.environment["CHAOS_CLOCK"] = str(clock)
    with tried("clock jumps forward", "clock jumps back", "clock jumps forward again", "continued in the past"):
        points = {f"{APPEND} {event} SIGSTOP": days for event, days in JUMPS.items()}
        with sweep.start(points=[*points, KILL]) as driver:
            for point, days in points.items():
                wait_for_suspension(sweep, driver, point)
                _set_clock(clock, days)
                driver.send_signal(signal.SIGCONT)
            assert sweep.wait_for_end(driver) == -signal.SIGKILL, sweep.stderr
        _set_clock(clock, LAST)
        sweep.finish()
        assert _jumps(sweep) == [1, -2, 2, -2]
        sweep.require_as(calm)


def _set_clock(path: Path, days: int) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(str(days))
    os.replace(temporary, path)


def _jumps(sweep: ChaosSweep) -> list[int]:
    """Return the differences in days between events one after the other that are more than half a day."""
    times = [event.time for event in sweep.events]
    days = [round((later - earlier) / DAY) for earlier, later in zip(times, times[1:], strict=False)]
    return [number for number in days if number]
