"""State of a log's runs after the events so far, on which the meaning of the next events depends."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from reid_tune.journal.events import (
    AttemptStarted,
    DriverEnded,
    DriverStarted,
    Event,
    RunEnded,
    RunPaused,
    RunSuggested,
    StageDone,
    StagesReopened,
    TrainingEpoch,
    WorkerStarted,
)
from reid_tune.journal.stages import STAGES
from reid_tune.tracking.mlflow_names import milliseconds, search_tags, source_tags

__all__ = ["RunHistory", "winner_run"]


class RunHistory:
    """The runs of a log, and the driver that started them.

    Attributes:
        start_times: Start of each run, in milliseconds since the epoch.
        unfinished_runs: Runs that have started, and have not ended or paused.
        training_data: Folders and fingerprint of the training images.
        source_tags: Tags with the user, command and commit of the latest driver.
        winner_tags: Tags of the parameters of all winners so far.
        has_error: Whether a driver has ended with an error.
        is_complete: Whether the last stage of a sweep is done.
        epochs: Last epoch of a single training.
    """

    def __init__(self) -> None:
        self.start_times: dict[str, int] = {}
        self.unfinished_runs: set[str] = set()
        self.training_data: Mapping[str, Any] = {}
        self.source_tags: dict[str, str] = {}
        self.winner_tags: dict[str, str] = {}
        self.has_error = self.is_complete = False
        self.epochs = 0
        self._waiting_since: dict[str, float] = {}
        self._waiting_seconds: dict[str, float] = {}
        self._search_tags: dict[str, dict[str, str]] = {}
        # Parameters in MLflow cannot be changed, so that a run that is done again becomes another MLflow run.
        self._restarts: Counter[str] = Counter()

    def apply(self, event: Event) -> None:
        """Update the state by the next event."""
        match event:
            case DriverStarted():
                self.training_data = event.environment.get("data") or {}
                self.source_tags = source_tags(event)
            case RunSuggested():
                self.start_times[event.run] = milliseconds(event)
                self.unfinished_runs.add(event.run)
                self._search_tags[event.run] = search_tags(event.parameters)
            case AttemptStarted():
                self.unfinished_runs.add(event.run)  # It may have been paused.
                self._waiting_since[event.run] = event.time
            case WorkerStarted():
                seconds = event.time - self._waiting_since.pop(event.run, event.time)
                self._waiting_seconds[event.run] = self._waiting_seconds.get(event.run, 0.0) + max(0.0, seconds)
            case RunPaused() | RunEnded():
                self.unfinished_runs.discard(event.run)
            case DriverEnded():
                self.has_error |= event.reason is not None
            case StageDone(stage="confirm"):
                self.winner_tags |= self.search_tags(winner_run(event))
            case StageDone():
                self.is_complete = self.is_complete or event.stage == STAGES[-1]
            case TrainingEpoch():
                self.epochs = event.epoch
            case StagesReopened():
                self.is_complete = self.is_complete and STAGES[-1] not in event.stages
                self._restarts.update(event.runs)
                self.unfinished_runs.difference_update(event.runs)
                for run in event.runs:
                    self.start_times.pop(run, None)
                    self._waiting_seconds.pop(run, None)

    def search_tags(self, run: str) -> dict[str, str]:
        """Return tags with the parameters that a run sets."""
        return self._search_tags.get(run, {})

    def waiting_tags(self, run: str) -> dict[str, str]:
        """Return a tag with the seconds that a run's attempts have waited for their resources, together."""
        return {"waiting_seconds": f"{self._waiting_seconds.get(run, 0.0):.1f}"}

    def mlflow_name(self, run: str) -> str:
        """Return the name of a run in MLflow, which is another one each time that the run is done again."""
        return f"{run} ({self._restarts[run] + 1})" if self._restarts[run] else run


def winner_run(confirm_done: StageDone) -> str:
    """Return the trial that has won, from the end of the stage `confirm`."""
    return f"trials/{confirm_done.result['winner']:04d}"
