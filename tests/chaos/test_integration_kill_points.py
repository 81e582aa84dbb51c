"""Processes of a sweep that are killed at named points of the program."""

import signal
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import pytest

from .conftest import MakeSweep
from .points import kill_points
from .sweeps import ChaosSweep
from .table import Tried

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("points", kill_points())
def test_a_killed_process_loses_nothing(
    make_sweep: MakeSweep, calm: dict[str, Any], tried: Tried, points: Mapping[str, Sequence[str]]
) -> None:
    sweep, everywhere = make_sweep(), list(chain.from_iterable(points.values()))
    with tried(*(f"killed: {kind}" for kind, struck in points.items() for _ in struck)):
        while not _ends_in_order(sweep, everywhere):
            pass
        assert [point for point in everywhere if not sweep.has_struck(point)] == []
        sweep.require_as(calm)


def _ends_in_order(sweep: ChaosSweep, points: Sequence[str]) -> bool:
    """Start or continue the sweep; False if its driver was killed at one of the points."""
    before = sum(map(sweep.has_struck, points))
    with sweep.start(points=points) as process:
        status = sweep.wait_for_end(process)
    if status == 0:
        return True
    assert status == -signal.SIGKILL, f"status {status}: {sweep.stderr}"
    assert sum(map(sweep.has_struck, points)) > before, "the driver was killed, but at no point"
    return False
