"""Meaning of each event of a log in MLflow; applying an event twice changes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reid_tune.config.keys import spec_values
from reid_tune.journal.events import (
    ArtifactWritten,
    AttemptStarted,
    DriverEnded,
    DriverStarted,
    EpochReported,
    Event,
    ModelRegistered,
    RunEnded,
    RunPaused,
    RunRetried,
    RunSuggested,
    StageDone,
    StageStarted,
    SweepHeader,
    TrainingEpoch,
    TrainingHeader,
    WorkerStarted,
)
from reid_tune.tracking.leaderboard_view import VIEW_TAG, leaderboard_view
from reid_tune.tracking.mlflow_names import (
    format_value,
    metric_points,
    milliseconds,
    public_spec,
    score_points,
    spec_yaml,
)
from reid_tune.tracking.run_history import RunHistory, winner_run
from reid_tune.tracking.run_writer import RunWriter

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Description", "Projection"]

_DESCRIPTION_TAG = "mlflow.note.content"


class Description(Protocol):
    """Markdown text of a sweep's parent run, made from the sweep's events."""

    def apply(self, event: Event) -> bool:
        """Read the next event; return whether the text may have changed."""

    def markdown(self, address: Mapping[str, str]) -> str:
        """Return the text; `address` has the addresses of runs' pages by run."""

    def linked_runs(self) -> Sequence[str]:
        """Return the runs to which the text has links."""


class Projection:
    """One log in one store; made from the log's first event, it finds or creates the experiment and the parent run.

    A single training has no other run than the parent. Paths in the log are relative to its `folder`, or absolute.
    Every method raises what MLflow raises, and LookupError or TypeError for an event that cannot be understood.

    Attributes:
        parent: Id of the parent run.
    """

    def __init__(
        self,
        connection: "MlflowClient",
        header: SweepHeader | TrainingHeader,
        folder: Path = Path(),
        description: Description | None = None,
    ) -> None:
        self._folder, self._description = folder, description
        self._spec: Mapping[str, Any] = header.spec
        self._metric = header.objectives[0] if isinstance(header, SweepHeader) else None
        self._history = RunHistory()
        self._writer = RunWriter(connection, header, self._history)
        self.parent = self._writer.parent
        self._description_outdated = False

    def recall(self, event: Event) -> None:
        """Apply an event to the state without sending it, as the store has it already."""
        if self._description and self._description.apply(event):
            self._description_outdated = True
        self._history.apply(event)

    def apply(self, event: Event) -> None:
        """Send an event, except for its metrics (`flush`) and files (`upload`); events without meaning are ignored."""
        self.recall(event)
        writer = self._writer
        match event:
            case SweepHeader():
                writer.set_experiment_tag(VIEW_TAG, leaderboard_view(event, self.parent))
            case TrainingHeader():
                writer.log_parameters(None, self._spec)
            case DriverStarted():
                self._driver_started()
            case StageStarted():
                writer.set_tags(None, {"stage": f"{event.stage} started"})
            case StageDone():
                self._stage_done(event)
            case RunSuggested():
                self._run_suggested(event)
            case AttemptStarted() if event.attempt > 1:
                writer.set_running(event.run)
                writer.set_tags(event.run, {"state": "running"})  # It may have been paused.
            case WorkerStarted():
                writer.set_tags(event.run, self._history.waiting_tags(event.run))
            case RunRetried():
                writer.set_tags(event.run, {"retry": f"{event.failure}: {event.reason}"})
            case EpochReported() | TrainingEpoch():
                writer.add_metrics(event.run if isinstance(event, EpochReported) else None, metric_points(event))
            case RunPaused():
                writer.set_tags(event.run, {"state": "paused", "pause": event.reason})
                writer.end_run(event.run, "FINISHED", milliseconds(event))
            case RunEnded():
                self._run_ended(event)
            case ModelRegistered():
                writer.set_tags(None, {"model": f"{event.model}/{event.version}", "alias": event.alias})
            case DriverEnded():
                self._driver_ended(event)

    @property
    def is_complete(self) -> bool:
        """Whether the events say that nothing is left to compute: the last stage or the last epoch is done."""
        epochs = self._spec.get("train.num_epochs")
        return self._history.is_complete or (self._metric is None and self._history.epochs == epochs)

    def flush(self) -> None:
        """Send the metrics of all events so far."""
        self._writer.flush()

    @staticmethod
    def has_files(event: Event) -> bool:
        """Whether an event has files for `upload`."""
        return isinstance(event, TrainingHeader | RunSuggested | ArtifactWritten)

    def upload(self, event: Event) -> None:
        """Send the files of an event that was applied."""
        run = event.run if isinstance(event, RunSuggested | ArtifactWritten) else None
        if run not in (None, *self._history.start_times):
            return  # The run was dropped after this event.
        if isinstance(event, ArtifactWritten):
            path = self._folder / event.path
            if not path.is_file():
                raise LookupError(f"{path} no longer exists and cannot be sent to MLflow.")
            self._writer.log_file(run, path, event.folder)
        else:
            parameters = event.parameters if isinstance(event, RunSuggested) else {}
            self._writer.log_text(run, spec_yaml(public_spec({**self._spec, **spec_values(parameters)})), "spec.yaml")

    def describe(self) -> None:
        """Write the description, if it may have changed."""
        if self._description and self._description_outdated:
            page = f"#/experiments/{self._writer.experiment}/runs"
            runs = [run for run in self._description.linked_runs() if run in self._history.start_times]
            addresses = {run: f"{page}/{self._writer.run_id(run)}" for run in runs}
            try:
                text = self._description.markdown(addresses)
            except Exception:  # The log has unexpected contents; its metrics matter more.
                return
            self._writer.set_tags(None, {_DESCRIPTION_TAG: text})
            self._description_outdated = False

    def is_deletion_error(self, error: Exception) -> bool:
        """Whether the store has raised an error because somebody has deleted the experiment or a run of it.

        A new projection to which all events are applied restores them.
        """
        return self._writer.is_deletion_error(error)

    def _driver_started(self) -> None:
        self._writer.set_running(None)
        earlier_reason = {"reason": ""} if self._history.has_error else {}
        self._writer.set_tags(None, {"state": "running", **earlier_reason, **self._history.source_tags})
        self._log_training_data(None)

    def _driver_ended(self, event: DriverEnded) -> None:
        """End the parent run, and the unfinished runs until the next driver continues them."""
        for run in sorted(self._history.unfinished_runs):
            self._writer.end_run(run, "KILLED", milliseconds(event))
        reason = {"reason": event.reason} if event.reason is not None else {}
        self._writer.set_tags(None, {"state": event.status.lower(), **reason})
        self._writer.end_run(None, event.status, milliseconds(event))

    def _run_suggested(self, event: RunSuggested) -> None:
        self._writer.log_parameters(event.run, {**self._spec, **event.parameters})
        tags = {"state": "running", "kind": event.run.partition("/")[0]}
        if event.origin:
            tags["origin"] = event.origin
        tags |= self._history.search_tags(event.run)
        tags |= {f"cost.{name}": format_value(value) for name, value in event.costs.items()}
        self._writer.set_tags(event.run, tags | self._history.source_tags)
        self._log_training_data(event.run)

    def _run_ended(self, event: RunEnded) -> None:
        reasons = {"reason": event.reason, "failure": event.failure}
        tags = {"state": event.state, **{key: value for key, value in reasons.items() if value}}
        self._writer.set_tags(event.run, tags)
        status = "FAILED" if event.state == "failed" else "FINISHED"
        self._writer.end_run(event.run, status, milliseconds(event))

    def _stage_done(self, event: StageDone) -> None:
        self._writer.set_tags(None, {"stage": f"{event.stage} done"})
        if event.stage == "confirm":
            self._confirm_done(event)
        elif event.stage == "test":
            self._test_done(event)

    def _confirm_done(self, event: StageDone) -> None:
        """Give the parent run the score and the parameters of the winner, so that tables of sweeps show them."""
        from mlflow.entities import Metric

        for row in event.result["trials"]:
            if row["number"] == event.result["winner"]:
                mean = Metric(f"confirm/{self._metric}", row["mean"], milliseconds(event), 0)
                self._writer.add_metrics(None, [mean])
        winner = winner_run(event)
        # A sweep whose stages are repeated may have another winner.
        earlier_tags = dict.fromkeys(self._history.winner_tags, "")
        self._writer.set_tags(None, {"winner": winner, **earlier_tags, **self._history.search_tags(winner)})

    def _test_done(self, event: StageDone) -> None:
        for name, model in event.result.get("models", {}).items():
            scores = score_points(model, event)
            self._writer.add_metrics(f"refit/{name}", scores)
            if name == "winner":
                self._writer.add_metrics(None, scores)
        settings = [self._spec.get(f"dataset.{key}_dataset_dir") for key in ("query", "test")]
        test_folders = [folder for folder in settings if folder]
        for name, digest in event.result.get("data", {}).items():
            folders = test_folders if name == "test folders" and test_folders else [name]
            self._writer.log_dataset(None, folders, digest, "test")
        for name, count in event.result.get("test_evaluations", {}).items():
            self._writer.set_tags(None, {f"test evaluations of {name}": str(count)})

    def _log_training_data(self, run: str | None) -> None:
        if data := self._history.training_data:
            self._writer.log_dataset(run, data["folders"], data["fingerprint"], "training")
