"""What one event of a log means in MLflow; applying an event twice changes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reid_tune.journal.events import (
    ArtifactWritten,
    AttemptStarted,
    DriverEnded,
    DriverStarted,
    EpochReported,
    Event,
    ModelRegistered,
    RunEnded,
    RunRetried,
    RunSuggested,
    StageDone,
    StagesReopened,
    StageStarted,
    SweepHeader,
    TrainingEpoch,
    TrainingHeader,
)
from reid_tune.tracking.leaderboard_view import VIEW_TAG, leaderboard_view
from reid_tune.tracking.mlflow_names import (
    dataset_input,
    format_value,
    metric_points,
    milliseconds,
    parameter_text,
    public_spec,
    score_points,
    spec_yaml,
)
from reid_tune.tracking.run_history import RunHistory, winner_of
from reid_tune.tracking.runs import RUN_TAG, nested_run, parent_run
from reid_tune.tracking.store import is_permanent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

__all__ = ["Description", "Projection"]

METRICS, PARAMETERS, LONGEST_TAG = 1000, 100, 8000  # that MLflow takes at once
NOTE = "mlflow.note.content"


class Description(Protocol):
    """What the parent run says of a sweep, made from its events."""

    def apply(self, event: Event) -> bool:
        """Take one event in; whether the text may be another one behind it."""

    def markdown(self, address: Mapping[str, str]) -> str:
        """The text; `address` has those of runs' pages by run."""

    def named(self) -> Sequence[str]:
        """The runs that the text would like to link to."""


class Projection:
    """One log in one store; made from the log's first event, it finds or creates the experiment and the parent run.

    A single training has no other run than the parent. Paths in the log are relative to its `folder`, or absolute.
    Every method raises what MLflow raises, and LookupError or TypeError for an event that cannot be understood.
    """

    def __init__(
        self,
        connection: "MlflowClient",
        header: SweepHeader | TrainingHeader,
        folder: Path = Path(),
        description: Description | None = None,
    ) -> None:
        self._connection, self._folder, self._description = connection, folder, description
        self._uid = header.uid
        self._spec: Mapping[str, Any] = header.spec
        self._name = header.name
        self._metric = header.objectives[0] if isinstance(header, SweepHeader) else None
        experiment = header.experiment if isinstance(header, TrainingHeader) else header.name
        self._experiment, self.parent = parent_run(connection, experiment, self._uid, milliseconds(header), self._name)
        self._runs: dict[str, str] = {}
        self._past = RunHistory()
        self._points: dict[str, list[Metric]] = {}
        self._stale = False

    def recall(self, event: Event) -> None:
        """Take in an event that the store has already."""
        if self._description and self._description.apply(event):
            self._stale = True
        self._past.apply(event)
        if isinstance(event, StagesReopened):
            for run in event.runs:
                self._runs.pop(run, None)

    def apply(self, event: Event) -> None:
        """Send one event; its metrics go with `flush`, its files with `upload`. Some kinds mean nothing to MLflow."""
        self.recall(event)
        match event:
            case SweepHeader():
                self._connection.set_experiment_tag(self._experiment, VIEW_TAG, leaderboard_view(event, self.parent))
            case TrainingHeader():
                self._settings(self.parent, self._spec)
            case DriverStarted():
                self._driver()
            case StageStarted():
                self._tag(self.parent, stage=f"{event.stage} started")
            case StageDone():
                self._stage_done(event)
            case RunSuggested():
                self._suggested(event)
            case AttemptStarted() if event.attempt > 1:
                self._connection.update_run(self._named(event.run), status="RUNNING")
            case RunRetried():
                self._tag(self._named(event.run), retry=f"{event.failure}: {event.reason}")
            case EpochReported() | TrainingEpoch():
                run = event.run if isinstance(event, EpochReported) else None
                self._points.setdefault(self._named(run), []).extend(metric_points(event))
            case RunEnded():
                self._ended(event)
            case ModelRegistered():
                self._tag(self.parent, model=f"{event.model}/{event.version}", alias=event.alias)
            case DriverEnded():
                self._closed(event)

    def flush(self) -> None:
        """Send the metrics of all events so far."""
        for run, found in self._points.items():
            for start in range(0, len(found), METRICS):
                self._send(run, found[start : start + METRICS])
        self._points = {}

    @staticmethod
    def has_files(event: Event) -> bool:
        """Whether `upload` has something to do for an event."""
        return isinstance(event, TrainingHeader | RunSuggested | ArtifactWritten)

    def upload(self, event: Event) -> None:
        """Send the files of an event that was applied."""
        run = event.run if isinstance(event, RunSuggested | ArtifactWritten) else None
        if run not in (None, *self._past.begun):
            return  # It was dropped meanwhile.
        if isinstance(event, ArtifactWritten):
            path = self._folder / event.path
            if not path.is_file():
                raise LookupError(f"{path} is no longer there, so MLflow cannot have it.")
            self._connection.log_artifact(self._named(run), str(path), event.folder or None)
        else:
            parameters = event.parameters if isinstance(event, RunSuggested) else {}
            spec = public_spec({**self._spec, **parameters})
            self._connection.log_text(self._named(run), spec_yaml(spec), "spec.yaml")

    def describe(self) -> None:
        """Write the description, if it may be another one."""
        if self._description and self._stale:
            addresses = self._addresses(self._description.named())
            try:
                parameter_text = self._description.markdown(addresses)
            except Exception:  # Of a log with odd contents: its metrics matter more.
                return
            self._tag(self.parent, **{NOTE: parameter_text})
            self._stale = False

    def lost(self, error: Exception) -> bool:
        """Whether the store refuses because somebody has deleted the experiment or a run of it.

        A new projection that is told everything brings it back.
        """
        from mlflow.entities import ViewType
        from mlflow.exceptions import MlflowException

        if not is_permanent(error):
            return _missing(error)
        try:
            experiment = self._connection.get_experiment(self._experiment)
            parent = self._connection.get_run(self.parent)
        except MlflowException as second:
            if _missing(second):
                return True
            raise
        below = f"tags.`{RUN_TAG}` LIKE '{self._uid}/%'"
        gone = self._connection.search_runs([self._experiment], below, ViewType.DELETED_ONLY, max_results=1)
        return bool(gone) or "deleted" in (experiment.lifecycle_stage, parent.info.lifecycle_stage)

    def _send(self, run: str, metrics: "Sequence[Metric]") -> None:
        """All of them, or where the store refuses one of them each that it takes."""
        try:
            self._connection.log_batch(run, metrics=metrics)
        except Exception as error:
            if not is_permanent(error) or self.lost(error):
                raise
            for metric in metrics if len(metrics) > 1 else ():
                self._send(run, [metric])

    def _driver(self) -> None:
        self._connection.update_run(self.parent, status="RUNNING")
        past_reason = {"reason": ""} if self._past.failed else {}
        self._tag(self.parent, state="running", **past_reason, **self._past.source)
        self._inputs(self.parent)

    def _stage_done(self, event: StageDone) -> None:
        self._tag(self.parent, stage=f"{event.stage} done")
        if event.stage == "confirm":
            self._confirmed(event)
        elif event.stage == "test":
            self._tested(event)

    def _confirmed(self, event: StageDone) -> None:
        """The sweep as a line among others: what its winner has scored, and by which values."""
        from mlflow.entities import Metric

        for row in event.result["trials"]:
            if row["number"] == event.result["winner"]:
                mean = Metric(f"confirm/{self._metric}", row["mean"], milliseconds(event), 0)
                self._points.setdefault(self.parent, []).append(mean)
        name = winner_of(event)
        # A sweep that is done again may have another winner.
        self._tag(self.parent, winner=name, **(dict.fromkeys(self._past.won, "") | self._past.searched(name)))

    def _tested(self, event: StageDone) -> None:
        for name, model in event.result.get("models", {}).items():
            found = score_points(model, event)
            for run in (f"refit/{name}", *([None] if name == "winner" else [])):
                self._points.setdefault(self._named(run), []).extend(found)
        dataset = {key: self._spec.get(f"dataset.{key}_dataset_dir") for key in ("query", "test")}
        own = [folder for folder in dataset.values() if folder]
        for name, digest in event.result.get("data", {}).items():
            folders = own if name == "test folders" and own else [name]
            self._connection.log_inputs(self.parent, datasets=[dataset_input(folders, digest, "test")])
        for name, count in event.result.get("test_evaluations", {}).items():
            self._tag(self.parent, **{f"test evaluations of {name}": str(count)})

    def _suggested(self, event: RunSuggested) -> None:
        run = self._named(event.run)
        self._settings(run, {**self._spec, **event.parameters})
        origin = {"origin": event.origin} if event.origin else {}
        costs = {f"cost.{name}": format_value(value) for name, value in event.costs.items()}
        kind, searched = event.run.partition("/")[0], self._past.searched(event.run)
        self._tag(run, state="running", kind=kind, **origin, **searched, **costs, **self._past.source)
        self._inputs(run)

    def _settings(self, run: str, spec: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        shown = public_spec(spec)
        parameters = [Param(key, parameter_text(value)) for key, value in shown.items()]
        for start in range(0, len(parameters), PARAMETERS):
            self._connection.log_batch(run, params=parameters[start : start + PARAMETERS])

    def _inputs(self, run: str) -> None:
        if found := self._past.data:
            data = dataset_input(found["folders"], found["fingerprint"], "training")
            self._connection.log_inputs(run, datasets=[data])

    def _ended(self, event: RunEnded) -> None:
        run, why = self._named(event.run), {"reason": event.reason, "failure": event.failure}
        self._tag(run, state=event.state, **{key: value for key, value in why.items() if value})
        status = "FAILED" if event.state == "failed" else "FINISHED"
        self._connection.set_terminated(run, status, milliseconds(event))

    def _closed(self, event: DriverEnded) -> None:
        """The driver has ended: runs at work are cut short until the next one goes on with them."""
        for run in sorted(self._past.open):
            self._connection.set_terminated(self._named(run), "KILLED", milliseconds(event))
        reason = {"reason": event.reason} if event.reason is not None else {}
        self._tag(self.parent, state=event.status.lower(), **reason)
        self._connection.set_terminated(self.parent, event.status, milliseconds(event))

    def _addresses(self, runs: Sequence[str]) -> dict[str, str]:
        """Pages within MLflow's UI of those that have begun."""
        page = f"#/experiments/{self._experiment}/runs"
        return {run: f"{page}/{self._named(run)}" for run in runs if run in self._past.begun}

    def _named(self, name: str | None) -> str:
        if name is None:
            return self.parent
        if name not in self._runs:
            place = self._connection, self._experiment, self.parent, self._uid
            self._runs[name] = nested_run(*place, self._past.label(name), self._past.begun[name])
        return self._runs[name]

    def _tag(self, run: str, **tags: str) -> None:
        from mlflow.entities import RunTag

        self._connection.log_batch(run, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()])


def _missing(error: Exception) -> bool:
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"
