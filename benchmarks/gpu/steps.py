"""Steps of a check: how they are run within a common time, and the table of what they gave."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Failed", "Outcome", "Runner", "Step", "line"]

# The figure of a step in words, and its numbers for gpu.json.
Outcome = tuple[str, Any]


class Failed(Exception):
    """Raised by a step that did not do what it should; the message is its figure."""


@dataclass(frozen=True)
class Step:
    """A named function of the seconds that it may take.

    `limit` is the most that it gets, `least` what must be left of the whole check for it to begin.
    """

    name: str
    limit: float
    function: Callable[[float], Outcome]
    least: float = 10


class Runner:
    """Run steps, print a line for each as it ends, and keep all results in a JSON file."""

    def __init__(self, file: Path, seconds: float, only: Sequence[str], skip: Sequence[str], stretch: float) -> None:
        """Begin the common time of all steps.

        Args:
            seconds: The common time.
            only: Names of the steps to run; all if empty.
            skip: Names of the steps to leave out.
            stretch: Factor on the limit of each step, above 1 on a slow machine.
        """
        self.results: dict[str, dict[str, Any]] = {}
        self._file, self._only, self._skip, self._stretch = file, only, skip, stretch
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()

    @property
    def failed(self) -> bool:
        return any(result["status"] == "FAIL" for result in self.results.values())

    def run(self, step: Step, *, always: bool = False) -> None:
        """Run a step unless the options leave it out; a step that fails stops no other."""
        if not always and ((self._only and step.name not in self._only) or step.name in self._skip):
            return
        started = time.monotonic()
        limit = min(self._stretch * step.limit, self._end - started)
        if limit < step.least:
            result: dict[str, Any] = {"status": "SKIP", "figure": "no time is left"}
        else:
            result = _attempt(step, limit)
        result["seconds"] = round(time.monotonic() - started, 1)
        with self._lock:
            self.results[step.name] = result
            print(line(step.name, result, 150), flush=True)
            self._file.write_text(json.dumps(self.results, indent=1) + "\n")

    def run_chains(self, chains: Sequence[Sequence[Step]], at_once: int) -> None:
        """Run chains of steps side by side, the steps of one chain in turn."""
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda chain: [self.run(step) for step in chain], chains))

    def table(self) -> list[str]:
        """Lines of all results."""
        return [line(name, result) for name, result in self.results.items()]


def _attempt(step: Step, limit: float) -> dict[str, Any]:
    try:
        figure, data = step.function(limit)
    except Failed as error:
        return {"status": "FAIL", "figure": str(error)}
    except Exception as error:  # A fault of the check itself stops no other step.
        return {"status": "FAIL", "figure": f"{type(error).__name__}: {error}"}
    return {"status": "PASS", "figure": figure, "data": data}


def line(name: str, result: dict[str, Any], width: int = 380) -> str:
    """Status, name, seconds and figure of a result in one line, the figure in at most `width` characters."""
    return f"{result['status']:4} {name:14} {result['seconds']:6.1f} s  {result['figure'][:width]}"
