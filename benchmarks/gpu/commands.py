"""Command lines of a check: run from the project's root, logged, and ended when their time is over."""

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
TIMEOUT = 124  # The status of a command that was ended, as that of timeout(1).


@dataclass(frozen=True)
class Finished:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """Its last line, which tells the cause of a failure."""
        return last_line(self.err) or last_line(self.out)


class Commands:
    """Run commands and write what they print to a log, which is empty at first."""

    def __init__(self, log: Path) -> None:
        self._log, self._lock = log, threading.Lock()
        log.write_text("")

    def run(self, name: str, command: Sequence[Any], limit: float, **environment: str) -> Finished:
        """Run a command for at most `limit` seconds; then it is killed with all processes that it started."""
        words = [str(word) for word in command]
        # The packages of the project are imported from its root, whether it is installed or not.
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
        """Run a command that must succeed."""
        finished = self.run(name, command, limit, **environment)
        if finished.status == TIMEOUT:
            raise Failed(f"no end within {limit:.0f} s: {finished.last}")
        if finished.status:
            raise Failed(f"status {finished.status}: {finished.last}")
        return finished

    def sentence(self, name: str, command: Sequence[Any], limit: float, statuses: Sequence[int], pattern: str) -> str:
        """Run a command that must end with one of the statuses and a sentence that has the pattern; the sentence."""
        finished = self.run(name, command, limit)
        sentences = [text for text in finished.err.splitlines() if text.startswith("reid-tune: ")]
        if "Traceback" in finished.err:
            raise Failed(f"a traceback, status {finished.status}: {finished.last}")
        if finished.status not in statuses or not sentences or not re.search(pattern, sentences[-1]):
            raise Failed(f"status {finished.status}, expected {statuses[0]}: {(sentences or [finished.last])[-1]}")
        return sentences[-1]


def last_line(text: str) -> str:
    """The last line that is not empty, at most 300 characters of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
