"""Writes parameters, metrics, tags and files of a log's runs to MLflow, in batches that it accepts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_tune.journal.events import SweepHeader, TrainingHeader
from reid_tune.tracking.mlflow_names import dataset_input, milliseconds, parameter_text, public_spec
from reid_tune.tracking.run_history import RunHistory
from reid_tune.tracking.runs import is_deletion_error, nested_run, parent_run
from reid_tune.tracking.store import is_permanent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

__all__ = ["RunWriter"]

# Limits of MLflow: metrics and parameters of a request, and characters of a tag.
_MAX_METRICS, _MAX_PARAMETERS, _MAX_TAG_LENGTH = 1000, 100, 8000


class RunWriter:
    """The runs of one log in one store; the experiment and the runs are created if missing.

    Methods take the name of a run in the log, or None for the parent run, and raise what MLflow raises.

    Args:
        header: First event of the log.
        history: State of the log's runs; the caller keeps it up to date.

    Attributes:
        experiment: Id of the experiment.
        parent: Id of the parent run.
    """

    def __init__(self, connection: "MlflowClient", header: SweepHeader | TrainingHeader, history: RunHistory) -> None:
        self._connection, self._history, self._uid = connection, history, header.uid
        name = header.experiment if isinstance(header, TrainingHeader) else header.name
        self.experiment, self.parent = parent_run(connection, name, header.uid, milliseconds(header), header.name)
        self._run_ids: dict[str, str] = {}  # by the runs' names in MLflow
        self._metrics: dict[str, list[Metric]] = {}  # by id of the run

    def run_id(self, run: str | None) -> str:
        """Return the id of a run.

        Raises:
            LookupError: the run has not started.
        """
        if run is None:
            return self.parent
        name = self._history.mlflow_name(run)
        if name not in self._run_ids:
            start = self._history.start_times[run]
            self._run_ids[name] = nested_run(self._connection, self.experiment, self.parent, self._uid, name, start)
        return self._run_ids[name]

    def set_experiment_tag(self, key: str, value: str) -> None:
        """Set a tag of the experiment."""
        self._connection.set_experiment_tag(self.experiment, key, value)

    def set_running(self, run: str | None) -> None:
        """Set the status of a run to RUNNING."""
        self._connection.update_run(self.run_id(run), status="RUNNING")

    def end_run(self, run: str | None, status: str, time: int) -> None:
        """Set the end and the status of a run.

        Args:
            status: Status in MLflow, such as FINISHED.
            time: Milliseconds since the epoch.
        """
        self._connection.set_terminated(self.run_id(run), status, time)

    def set_tags(self, run: str | None, tags: Mapping[str, str]) -> None:
        """Set tags of a run; values that are too long for MLflow are cut."""
        from mlflow.entities import RunTag

        items = [RunTag(key, value[:_MAX_TAG_LENGTH]) for key, value in tags.items()]
        self._connection.log_batch(self.run_id(run), tags=items)

    def log_parameters(self, run: str | None, spec: Mapping[str, Any]) -> None:
        """Write a spec (dotted keys and values) as the parameters of a run, without secrets."""
        from mlflow.entities import Param

        parameters = [Param(key, parameter_text(value)) for key, value in public_spec(spec).items()]
        for start in range(0, len(parameters), _MAX_PARAMETERS):
            self._connection.log_batch(self.run_id(run), params=parameters[start : start + _MAX_PARAMETERS])

    def log_dataset(self, run: str | None, folders: list[str], digest: str, context: str) -> None:
        """Write image folders as a data set of a run; for the arguments see `dataset_input`."""
        self._connection.log_inputs(self.run_id(run), datasets=[dataset_input(folders, digest, context)])

    def log_file(self, run: str | None, path: Path, folder: str) -> None:
        """Upload a file into a folder of a run's artifacts; empty for their root."""
        self._connection.log_artifact(self.run_id(run), str(path), folder or None)

    def log_text(self, run: str | None, text: str, path: str) -> None:
        """Upload a text as one of a run's artifacts."""
        self._connection.log_text(self.run_id(run), text, path)

    def add_metrics(self, run: str | None, metrics: "Sequence[Metric]") -> None:
        """Keep metrics of a run for `flush`."""
        self._metrics.setdefault(self.run_id(run), []).extend(metrics)

    def flush(self) -> None:
        """Send the metrics added so far."""
        for run_id, metrics in self._metrics.items():
            for start in range(0, len(metrics), _MAX_METRICS):
                self._send(run_id, metrics[start : start + _MAX_METRICS])
        self._metrics = {}

    def is_deletion_error(self, error: Exception) -> bool:
        """Whether the store has raised an error because somebody has deleted the experiment or a run of it."""
        return is_deletion_error(self._connection, self.experiment, self.parent, self._uid, error)

    def _send(self, run_id: str, metrics: "Sequence[Metric]") -> None:
        """Send metrics in one request, or one by one if the store refuses one of them."""
        try:
            self._connection.log_batch(run_id, metrics=metrics)
        except Exception as error:
            if not is_permanent(error) or self.is_deletion_error(error):
                raise
            for metric in metrics if len(metrics) > 1 else ():
                self._send(run_id, [metric])
