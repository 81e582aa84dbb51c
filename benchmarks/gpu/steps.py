"""Steps of a check, run within a common time, and the table of their results."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Failed", "Outcome", "Runner", "Step", "format_result"]

# Figure of a step as text, and its numbers for gpu.json.
Outcome = tuple[str, Any]


class Failed(Exception):
    """Failure of a step; the message is its figure."""


@dataclass(frozen=True)
class Step:
    """Step of a check.

    Attributes:
        name: Name of the step.
        limit: Maximum of its seconds.
        function: Function of the seconds that it may take.
        least: Seconds of the whole check that must remain for the step to start.
    """

    name: str
    limit: float
    function: Callable[[float], Outcome]
    least: float = 10


class Runner:
    """Runs steps, prints a line for each when it ends, and writes all results to a JSON file."""

    def __init__(
        self, file: Path, seconds: float, only: Sequence[str], skip: Sequence[str], limit_factor: float
    ) -> None:
        """Start the common time of all steps.

        Args:
            file: JSON file of the results.
            seconds: Common time of all steps.
            only: Names of the steps to run; all if empty.
            skip: Names of the steps to omit.
            limit_factor: Factor on the limit of each step, above 1 on a slow machine.
        """
        self.results: dict[str, dict[str, Any]] = {}
        self._file, self._only, self._skip, self._limit_factor = file, only, skip, limit_factor
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()

    @property
    def has_failed(self) -> bool:
        """Whether a step has failed."""
        return any(result["status"] == "FAIL" for result in self.results.values())

    def run(self, step: Step, *, always: bool = False) -> None:
        """Run a step, unless the options omit it and `always` is not set; a failed step does not stop the others."""
        if not always and ((self._only and step.name not in self._only) or step.name in self._skip):
            return
        started = time.monotonic()
        limit = min(self._limit_factor * step.limit, self._end - started)
        if limit < step.least:
            result: dict[str, Any] = {"status": "SKIP", "figure": "no time is left"}
        else:
            result = _attempt(step, limit)
        result["seconds"] = round(time.monotonic() - started, 1)
        with self._lock:
            self.results[step.name] = result
            print(format_result(step.name, result, 150), flush=True)
            self._file.write_text(json.dumps(self.results, indent=1) + "\n")

    def run_chains(self, chains: Sequence[Sequence[Step]], max_concurrent: int) -> None:
        """Run chains of steps at the same time, `max_concurrent` at most, the steps of a chain in turn."""
        with ThreadPoolExecutor(max_concurrent) as pool:
            list(pool.map(lambda chain: [self.run(step) for step in chain], chains))

    def table(self) -> list[str]:
        """Return the lines of all results."""
        return [format_result(name, result) for name, result in self.results.items()]


def _attempt(step: Step, limit: float) -> dict[str, Any]:
    try:
        figure, data = step.function(limit)
    except Failed as error:
        return {"status": "FAIL", "figure": str(error)}
    except Exception as error:  # An error of the check itself does not stop other steps.
        return {"status": "FAIL", "figure": f"{type(error).__name__}: {error}"}
    return {"status": "PASS", "figure": figure, "data": data}


def format_result(name: str, result: dict[str, Any], width: int = 380) -> str:
    """Return status, name, seconds and figure of a result in a line, with the figure cut to `width` characters."""
    return f"{result['status']:4} {name:14} {result['seconds']:6.1f} s  {result['figure'][:width]}"
