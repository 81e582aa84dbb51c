"""`status.json`: what a task does, one JSON object a line, for tools that watch it."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from reid_tune.files import make_folder

__all__ = ["StatusLog", "kpi", "logged"]

# The reference's names of the metrics.
_NAMES = {
    "loss": "train_loss",
    "accuracy": "train_acc",
    "Rank-1": "cmc_rank_1",
    "Rank-5": "cmc_rank_5",
    "Rank-10": "cmc_rank_10",
}
_SCORES = ("mAP", "mINP")


class StatusLog:
    """Appends lines to `<directory>/status.json`; each has date, time, status, verbosity and message."""

    def __init__(self, directory: Path) -> None:
        self.path = make_folder(directory) / "status.json"
        self.started = time.monotonic()

    def write(self, status: str, message: str, **values: Any) -> None:
        """Append a line; numbers stay numbers, fractions are not rounded, times are seconds."""
        now = datetime.now()
        line = {"date": now.strftime("%m/%d/%Y"), "time": now.strftime("%H:%M:%S"), "status": status}
        line |= {"verbosity": "ERROR" if status == "FAILURE" else "INFO", "message": message, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def kpi(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics by the reference's names: mAP, mINP, cmc_rank_1, ... as fractions, train_loss and train_acc."""
    named = {_NAMES.get(name, name): value for name, value in metrics.items()}
    return {name: named[name] for name in (*_NAMES.values(), *_SCORES) if name in named}


@contextmanager
def logged(directory: Path, task: str) -> Iterator[StatusLog]:
    """STARTED, then SUCCESS or FAILURE with the reason; the task writes its results in between."""
    log = StatusLog(directory)
    log.write("STARTED", f"{task} started")
    try:
        yield log
    except BaseException as error:
        reason = "stopped by the user" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        log.write("FAILURE", f"{task} failed: {reason}", seconds=round(time.monotonic() - log.started, 3))
        raise
    log.write("SUCCESS", f"{task} finished", seconds=round(time.monotonic() - log.started, 3))
