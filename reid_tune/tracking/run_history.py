"""What the events of a log have said so far, as far as the next ones depend on it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from reid_tune.journal.events import (
    DriverEnded,
    DriverStarted,
    Event,
    RunEnded,
    RunSuggested,
    StageDone,
    StagesReopened,
)
from reid_tune.tracking.mlflow_names import milliseconds, search_tags, source_tags

__all__ = ["RunHistory", "winner_of"]


class RunHistory:
    """The runs of a log and where they come from.

    Attributes:
        begun: Runs, and when, in milliseconds since the epoch.
        open: Those that have not ended.
        data: Folders and fingerprint of the training images.
        source: Tags that tell who has started the last driver, and how.
        won: Tags of values that earlier winners have had.
        failed: Whether a driver has ended with a reason.
    """

    def __init__(self) -> None:
        self.begun: dict[str, int] = {}
        self.open: set[str] = set()
        self.data: Mapping[str, Any] = {}
        self.source: dict[str, str] = {}
        self.won: dict[str, str] = {}
        self.failed = False
        self._searched: dict[str, dict[str, str]] = {}
        # MLflow keeps parameters for good, so that a run that is done again is another one.
        self._dropped: Counter[str] = Counter()

    def apply(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case DriverStarted():
                self.data = event.environment.get("data") or {}
                self.source = source_tags(event)
            case RunSuggested():
                self.begun[event.run] = milliseconds(event)
                self.open.add(event.run)
                self._searched[event.run] = search_tags(event.parameters)
            case RunEnded():
                self.open.discard(event.run)
            case DriverEnded():
                self.failed |= event.reason is not None
            case StageDone(stage="confirm"):
                self.won |= self.searched(winner_of(event))
            case StagesReopened():
                self._dropped.update(event.runs)
                self.open.difference_update(event.runs)
                for run in event.runs:
                    self.begun.pop(run, None)

    def searched(self, run: str) -> dict[str, str]:
        """Tags of the values that a run has changed."""
        return self._searched.get(run, {})

    def label(self, run: str) -> str:
        """The name of a run in MLflow, another one for each time that it was done again."""
        return f"{run} ({self._dropped[run] + 1})" if self._dropped[run] else run


def winner_of(confirmed: StageDone) -> str:
    """The trial that has won, by the end of the stage `confirm`."""
    return f"trials/{confirmed.result['winner']:04d}"
