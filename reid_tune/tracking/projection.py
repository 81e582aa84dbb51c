"""What one event of a sweep's log means in MLflow; applying an event twice changes nothing."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_tune.events.log import Event
from reid_tune.tracking.runs import nested_run, parent_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Projection"]

PARAMETERS_PER_CALL = 100
SECRET_OR_PLACE = ("encryption_key", "results_dir")
LONGEST_TAG = 5000


class Projection:
    """One sweep in one store; made from the log's first event, it finds or creates the experiment and the parent run.

    Paths in the log are relative to the sweep's `folder`, or absolute.

    Every method raises what MLflow raises, and LookupError or TypeError for an event that cannot be understood.
    """

    def __init__(self, connection: "MlflowClient", sweep: Event, folder: Path = Path()) -> None:
        self._connection, self._folder = connection, folder
        self._uid: str = sweep["uid"]
        self._spec: Mapping[str, Any] = sweep["spec"]
        self._experiment, self.parent = parent_run(connection, sweep["name"], self._uid, _milliseconds(sweep))
        self._runs: dict[str, str] = {}
        # How often a run of this name was dropped: MLflow keeps parameters for good, so the next one is another run.
        self._dropped: Counter[str] = Counter()

    def drop(self, event: Event) -> None:
        """Take in that a sweep has dropped runs; also to be told of events that the store has already."""
        if event["kind"] == "reopened":
            self._dropped.update(event["runs"])
            for run in event["runs"]:
                self._runs.pop(run, None)

    def apply(self, event: Event) -> None:
        """Send one event; kinds that MLflow has no use for are passed over."""
        match event["kind"]:
            case "reopened":
                self.drop(event)
            case "driver":
                self._connection.update_run(self.parent, status="RUNNING")
            case "stage":
                self._stage(event)
            case "suggested":
                self._suggested(event)
            case "attempt" if event["attempt"] > 1:
                self._connection.update_run(self._run(event), status="RUNNING")
            case "report":
                self._report(event)
            case "ended":
                self._ended(event)
            case "artifact":
                self._artifact(event)
            case "registered":
                self._tag(self.parent, model=f"{event['model']}/{event['version']}", alias=event["alias"])

    def finish(self, status: str, time: int) -> None:
        """End the parent run; `time` in milliseconds since the epoch."""
        self._connection.set_terminated(self.parent, status, time)

    def _stage(self, event: Event) -> None:
        self._tag(self.parent, stage=f"{event['stage']} {event['state']}")
        if (event["stage"], event["state"]) == ("register", "done"):
            self.finish("FINISHED", _milliseconds(event))

    def _suggested(self, event: Event) -> None:
        from mlflow.entities import Param

        run = self._run(event)
        values = {**self._spec, **event["parameters"]}
        parameters = [Param(key, _text(value)) for key, value in sorted(values.items()) if _shown(key)]
        for start in range(0, len(parameters), PARAMETERS_PER_CALL):
            self._connection.log_batch(run, params=parameters[start : start + PARAMETERS_PER_CALL])
        # Tags tell the searched parameters from the hundred that all runs share.
        self._tag(run, **{f"search.{key}": _text(value) for key, value in event["parameters"].items() if _shown(key)})

    def _report(self, event: Event) -> None:
        from mlflow.entities import Metric

        time, epoch = _milliseconds(event), event["epoch"]
        metrics = [Metric(key, value, time, epoch) for key, value in event["metrics"].items() if value is not None]
        self._connection.log_batch(self._run(event), metrics=metrics)

    def _ended(self, event: Event) -> None:
        run, reason = self._run(event), event.get("reason")
        self._tag(run, state=event["state"], **({"reason": reason} if reason else {}))
        status = "FAILED" if event["state"] == "failed" else "FINISHED"
        self._connection.set_terminated(run, status, _milliseconds(event))

    def _artifact(self, event: Event) -> None:
        path = self._folder / event["path"]
        if not path.is_file():
            raise LookupError(f"{path} is no longer there, so MLflow cannot have it.")
        self._connection.log_artifact(self._run(event), str(path), event["folder"] or None)

    def _run(self, event: Event) -> str:
        name = event["run"]
        if name is None:
            return self.parent
        if name not in self._runs:
            label = f"{name} ({self._dropped[name] + 1})" if self._dropped[name] else name
            self._runs[name] = nested_run(
                self._connection, self._experiment, self.parent, self._uid, label, _milliseconds(event)
            )
        return self._runs[name]

    def _tag(self, run: str, **tags: str) -> None:
        from mlflow.entities import RunTag

        self._connection.log_batch(run, tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()])


def _milliseconds(event: Event) -> int:
    return round(event["time"] * 1000)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shown(key: str) -> bool:
    return key.rpartition(".")[2] not in SECRET_OR_PLACE
