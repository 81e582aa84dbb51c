"""Reporting of a run: the interface that the loop reports to, and the reporter that prints to stderr."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from reid_tune.training.distributed import rank

__all__ = ["Metrics", "Reporter", "TerminalReporter", "epoch_line"]

# Values of one epoch by name, with its 1-based number under `epoch`.
Metrics = Mapping[str, Any]


class Reporter(Protocol):
    """Receives the metrics of every finished epoch, after the checkpoint that holds them is written."""

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        """Announce that the run begins or continues; epochs are 1-based."""

    def info(self, text: str) -> None:
        """Show one or more lines that the user should know."""

    def report_step(self, step: int, loss: float) -> None:
        """Report the loss of a step of the current epoch, 1-based; called every few steps."""

    def report_epoch(self, metrics: Metrics) -> None:
        """Report a finished epoch; may raise to end the run."""


class TerminalReporter:
    """Shows a run in this terminal: a progress bar, and a line for each epoch.

    A context manager, so that an error removes the bar.
    """

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=rank() != 0 or not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self.first_epoch = 1
        self._reported_at = time.monotonic()
        self._num_epochs = 0

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        self.first_epoch, self._num_epochs = first_epoch, num_epochs
        self._reported_at = time.monotonic()
        if rank() == 0:
            text = f"{steps_per_epoch} steps per epoch, epochs {first_epoch} to {num_epochs}"
            self._console.print(text if first_epoch <= num_epochs else "all epochs are done already", highlight=False)
        self._progress.start()
        self._task = self._progress.add_task("", total=steps_per_epoch, epoch=first_epoch, loss=0.0)

    def info(self, text: str) -> None:
        if rank() == 0:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def report_step(self, step: int, loss: float) -> None:
        assert self._task is not None
        self._progress.update(self._task, completed=step, loss=loss)

    def report_epoch(self, metrics: Metrics) -> None:
        assert self._task is not None
        self._progress.update(self._task, completed=0, epoch=metrics["epoch"] + 1)
        if rank() == 0 and metrics["epoch"] >= self.first_epoch:
            self._console.print(epoch_line(metrics, self._num_epochs), highlight=False)

    def seconds_since_last_report(self) -> float:
        """Return the seconds since the last call or the start, checkpoints and validations included."""
        now = time.monotonic()
        self._reported_at, previous = now, self._reported_at
        return round(now - previous, 3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def epoch_line(metrics: Metrics, num_epochs: int) -> str:
    """Return a line with the metrics of an epoch, scores in percent."""
    parts = [
        f"epoch {metrics['epoch']}/{num_epochs}",
        f"loss {metrics['loss']:.3f}",
        f"lr {metrics['lr']:.3g}",
        f"{metrics['images_per_second']:.0f} images/s",
    ]
    parts += [f"{name} {100 * metrics[name]:.1f} %" for name in ("mAP", "Rank-1") if name in metrics]
    return "  ".join(parts)
