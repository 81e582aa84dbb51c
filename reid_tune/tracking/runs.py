"""Runs in the store, known by their tags."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reid_tune.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["RUN_TAG", "SWEEP_TAG", "nested_run", "parent_run"]

SWEEP_TAG = "reid_tune.sweep"
RUN_TAG = "reid_tune.run"


def parent_run(
    connection: "MlflowClient", experiment: str, uid: str, start: int | None = None, name: str = ""
) -> tuple[str, str]:
    """The experiment and the run of a sweep or of a single training, created where they do not exist.

    Args:
        start: In milliseconds since the epoch.
        name: Of the run, if it is another one than that of the experiment.
    """
    found = experiment_id(connection, experiment)
    return found, _find_or_create(connection, found, {SWEEP_TAG: uid}, name or experiment, start)


def nested_run(connection: "MlflowClient", experiment: str, parent: str, uid: str, name: str, start: int) -> str:
    """The run `name`, such as `trials/0007`, below a sweep's parent run, created where it does not exist."""
    tags = {RUN_TAG: f"{uid}/{name}", "mlflow.parentRunId": parent}
    return _find_or_create(connection, experiment, tags, name, start)


def _find_or_create(
    connection: "MlflowClient", experiment: str, tags: Mapping[str, str], name: str, start: int | None
) -> str:
    from mlflow.entities import ViewType

    key, value = next(iter(tags.items()))
    found = connection.search_runs([experiment], f"tags.`{key}` = '{value}'", ViewType.ALL)
    if not found:
        return connection.create_run(experiment, start_time=start, run_name=name, tags=dict(tags)).info.run_id
    # The oldest, as a server that answered too late may have made one twice; the others are empty.
    first, *twins = sorted((run.info for run in found), key=lambda info: (info.start_time, info.run_id))
    if first.lifecycle_stage == "deleted":
        connection.restore_run(first.run_id)
    for twin in twins:
        if twin.lifecycle_stage != "deleted":
            connection.delete_run(twin.run_id)
    return first.run_id
