"""Where a run reports to."""

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Metrics", "Reporter"]

# Values of one epoch by name, with its 1-based number under `epoch`.
Metrics = Mapping[str, Any]


class Reporter(Protocol):
    """Receives the metrics of every finished epoch, behind the checkpoint that holds them."""

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        """The run begins or continues; epochs are 1-based."""

    def say(self, text: str) -> None:
        """Something that the user should know, in one line or more."""

    def step(self, step: int, loss: float) -> None:
        """A step of the current epoch is done; 1-based, called now and then."""

    def report(self, metrics: Metrics) -> None:
        """An epoch is done; may raise to end the run."""
