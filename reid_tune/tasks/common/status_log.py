"""`status.json`: the progress of a task, one JSON object per line, for tools that watch it."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from reid_tune.files import make_folder

__all__ = ["StatusLog", "kpi", "logged"]

# TAO's names of the metrics.
_TAO_NAMES = {
    "loss": "train_loss",
    "accuracy": "train_acc",
    "Rank-1": "cmc_rank_1",
    "Rank-5": "cmc_rank_5",
    "Rank-10": "cmc_rank_10",
}
_SCORES = ("mAP", "mINP")


class StatusLog:
    """Log that appends lines with date, time, status, verbosity and message to `<directory>/status.json`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "status.json"
        self._initial_size = self._size()
        self._started = time.monotonic()

    @property
    def has_started(self) -> bool:
        """Whether this task, or a worker of it, has written a line."""
        return self._size() > self._initial_size

    def write(self, status: str, message: str, **values: Any) -> None:
        """Append a line.

        Args:
            status: STARTED, RUNNING, SUCCESS or FAILURE.
            message: Sentence for the user.
            values: Further keys; numbers stay numbers, fractions are not rounded, times are in seconds.
        """
        now = datetime.now()
        line = {"date": now.strftime("%m/%d/%Y"), "time": now.strftime("%H:%M:%S"), "status": status}
        line |= {"verbosity": "ERROR" if status == "FAILURE" else "INFO", "message": message, **values}
        make_folder(self.path.parent)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def end(self, status: str, message: str) -> None:
        """Append the last line, if the task has written a first one."""
        if self.has_started:
            self.write(status, message, seconds=round(time.monotonic() - self._started, 3))

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


def kpi(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return metrics by TAO's names: mAP, mINP, cmc_rank_1, ... as fractions, train_loss and train_acc."""
    renamed = {_TAO_NAMES.get(name, name): value for name, value in metrics.items()}
    return {name: renamed[name] for name in (*_TAO_NAMES.values(), *_SCORES) if name in renamed}


@contextmanager
def logged(directory: Path, task: str) -> Iterator[StatusLog]:
    """Yield a log that ends with SUCCESS or FAILURE; the task writes STARTED after it has checked its input."""
    log = StatusLog(directory)
    try:
        yield log
    except BaseException as error:
        reason = "stopped by the user" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        log.end("FAILURE", f"{task} failed: {reason}")
        raise
    log.end("SUCCESS", f"{task} finished")
