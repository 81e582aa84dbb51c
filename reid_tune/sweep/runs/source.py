"""What a stage runs: a source of runs that decides from their reports."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reid_tune.checkpoints.names import newest_attempt
from reid_tune.spec.experiment import Experiment
from reid_tune.sweep.journal import Journal

__all__ = ["ATTEMPTS", "Attempt", "Recorder", "Source", "fault"]

# A run whose worker died is started again; one that dies at every start is given up.
ATTEMPTS = 3


@dataclass(frozen=True)
class Attempt:
    """One start of one run.

    Attributes:
        run: Name of the run.
        experiment: Its spec.
        folder: Where this attempt writes its checkpoints.
        resume: Checkpoint of an earlier attempt.
    """

    run: str
    experiment: Experiment
    folder: Path
    resume: Path | None


class Source(Protocol):
    """Gives out runs and learns from their reports."""

    def next(self) -> Attempt | None:
        """The next run to start, None while there is none."""

    def done(self) -> bool:
        """Whether nothing is left to start or to wait for."""

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Take a report in; False ends the run."""

    def lost(self, run: str, reason: str) -> None:
        """The process of a run died."""


def fault(metrics: Mapping[str, Any]) -> str | None:
    """Why a report fails its run: the run says so itself, or a value is not finite."""
    if "failed" in metrics:
        return str(metrics["failed"])
    wrong = [f"{name} is {x}" for name, x in metrics.items() if isinstance(x, float) and not math.isfinite(x)]
    return f"{', '.join(wrong)} in epoch {metrics['epoch']}" if wrong else None


class Recorder:
    """What all sources share: numbering attempts, recording reports once, giving up on what keeps dying."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        # What a driver's own death ended is not held against a run.
        self.losses: Counter[str] = Counter()
        # Runs that an earlier driver had started.
        self.waiting = [name for name, run in journal.state.runs.items() if run.state == "running"]

    def attempt(self, run: str, experiment: Experiment) -> Attempt:
        """Record and describe the next attempt of a run."""
        number = self.journal.state.runs[run].attempts + 1
        self.journal.emit("attempt", run=run, attempt=number)
        folder = self.journal.folder / run
        return Attempt(run, experiment, folder / f"attempt-{number}", newest_attempt(folder))

    def record(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Record an epoch's metrics; False where the log has them already."""
        values = dict(metrics)
        epoch = values.pop("epoch")
        if epoch in self.journal.state.runs[run].epochs:
            return False
        self.journal.emit("report", run=run, epoch=epoch, metrics=values)
        return True

    def end(self, run: str, state: str, reason: str = "") -> None:
        """Record the end of a run."""
        epoch = self.journal.state.runs[run].epoch
        self.journal.emit("ended", run=run, state=state, epoch=epoch, **({"reason": reason} if reason else {}))

    def lost(self, run: str, reason: str) -> bool:
        """A run's process died: queue it again, or end it as failed and return True."""
        self.losses[run] += 1
        if self.losses[run] < ATTEMPTS:
            self.waiting.append(run)
            return False
        self.end(run, "failed", reason)
        return True
