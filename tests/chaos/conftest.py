"""One sweep that nobody disturbs, for all processes of xdist together."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .sweeps import ChaosSweep, chaos_sweep
from .table import tried  # noqa: F401

MakeSweep = Callable[..., ChaosSweep]


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of an undisturbed sweep, see `ChaosSweep.outcome`."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    result = shared / "calm-sweep.json"
    with (shared / "calm-sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            with chaos_sweep(tmp_path_factory.mktemp("calm")) as sweep:
                sweep.finish()
                sweep.require_nothing_left()
                result.write_text(json.dumps(sweep.outcome()))
        outcome: dict[str, Any] = json.loads(result.read_text())
    return outcome


@pytest.fixture
def make_sweep(tmp_path: Path) -> Iterator[MakeSweep]:
    """A function that makes a sweep in a folder of that name, with changed keys of the search-space file."""
    with ExitStack() as stack:

        def make(name: str = "sweep", **changes: Any) -> ChaosSweep:
            return stack.enter_context(chaos_sweep(tmp_path / name, **changes))

        yield make
