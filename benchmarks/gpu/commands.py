"""Command lines of a check: run from the project's root, logged, and killed at their time limit."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps import Failed

__all__ = ["ROOT", "TOOL", "Commands", "Finished", "last_line"]

ROOT = Path(__file__).resolve().parents[2]
TOOL = (sys.executable, "-m", "reid_tune")
TIMEOUT = 124  # The status of a command that was killed, as in timeout(1).


@dataclass(frozen=True)
class Finished:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of the output, which has the cause of a failure."""
        return last_line(self.err) or last_line(self.out)


class Commands:
    """Runs commands, and writes their output to a log, which is emptied first."""

    def __init__(self, log: Path) -> None:
        self._log, self._lock = log, threading.Lock()
        log.write_text("")

    def run(self, name: str, command: Sequence[Any], limit: float, **environment: str) -> Finished:
        """Run a command; after `limit` seconds it is killed with all processes that it started."""
        words = [str(word) for word in command]
        # The packages of the project are imported from its root, even if it is not installed.
        path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", os.environ.get("PYTHONPATH"))]))
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                words,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env=os.environ | environment | {"PYTHONPATH": path},
                start_new_session=True,
            )
            try:
                status = process.wait(max(1.0, limit))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                status = TIMEOUT
            for file in (out, err):
                file.seek(0)
            finished = Finished(status, out.read(), err.read())
        with self._lock, self._log.open("a") as log:
            log.write(f"\n===== {name}: {' '.join(words)}  {environment or ''}\n{finished.out[-60_000:]}\n")
            log.write(f"--- stderr\n{finished.err[-30_000:]}\n=> {status}\n")
        return finished

    def require(self, name: str, command: Sequence[Any], limit: float, **environment: str) -> Finished:
        """Run a command that must succeed.

        Raises:
            Failed: The command failed or reached its limit.
        """
        finished = self.run(name, command, limit, **environment)
        if finished.status == TIMEOUT:
            raise Failed(f"not finished within {limit:.0f} s: {finished.last}")
        if finished.status:
            raise Failed(f"status {finished.status}: {finished.last}")
        return finished

    def require_error(
        self, name: str, command: Sequence[Any], limit: float, statuses: Sequence[int], pattern: str
    ) -> str:
        """Run a command that must end with one of the statuses and a message that matches the pattern.

        Returns:
            The message.

        Raises:
            Failed: The command ended differently.
        """
        finished = self.run(name, command, limit)
        messages = [text for text in finished.err.splitlines() if text.startswith("reid-tune: ")]
        if "Traceback" in finished.err:
            raise Failed(f"a traceback, status {finished.status}: {finished.last}")
        if finished.status not in statuses or not messages or not re.search(pattern, messages[-1]):
            raise Failed(f"status {finished.status}, expected {statuses[0]}: {(messages or [finished.last])[-1]}")
        return messages[-1]


def last_line(text: str) -> str:
    """Return the last line that is not empty, cut to 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
