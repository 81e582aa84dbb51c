"""Runs in the store, which are found by their tags, created, and restored after somebody has deleted them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reid_tune.tracking.store import experiment_id, is_permanent

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["SWEEP_TAG", "is_deletion_error", "nested_run", "parent_run"]

SWEEP_TAG = "reid_tune.sweep"
RUN_TAG = "reid_tune.run"


def parent_run(
    connection: "MlflowClient", experiment: str, uid: str, start: int | None = None, name: str = ""
) -> tuple[str, str]:
    """Return the ids of the experiment and the run of a sweep or of a single training, which are created if missing.

    Args:
        experiment: Name of the experiment.
        uid: Unique id of the sweep or training.
        start: Start of a new run, in milliseconds since the epoch.
        name: Name of a new run; that of the experiment by default.
    """
    experiment_key = experiment_id(connection, experiment)
    return experiment_key, _find_or_create(connection, experiment_key, {SWEEP_TAG: uid}, name or experiment, start)


def nested_run(connection: "MlflowClient", experiment: str, parent: str, uid: str, name: str, start: int) -> str:
    """Return the id of the run `name`, such as `trials/0007`, below a sweep's parent run; it is created if missing.

    Args:
        experiment: Id of the experiment.
        parent: Id of the parent run.
        uid: Unique id of the sweep.
        start: Start of a new run, in milliseconds since the epoch.
    """
    tags = {RUN_TAG: f"{uid}/{name}", "mlflow.parentRunId": parent}
    return _find_or_create(connection, experiment, tags, name, start)


def is_deletion_error(connection: "MlflowClient", experiment: str, parent: str, uid: str, error: Exception) -> bool:
    """Whether a store has raised an error because somebody has deleted the experiment of a sweep or one of its runs.

    Args:
        experiment: Id of the experiment.
        parent: Id of the parent run.
        uid: Unique id of the sweep.
    """
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    if not is_permanent(error):
        return _does_not_exist(error)
    try:
        stages = {
            connection.get_experiment(experiment).lifecycle_stage,
            connection.get_run(parent).info.lifecycle_stage,
        }
    except MlflowException as lookup_error:
        if _does_not_exist(lookup_error):
            return True
        raise
    nested = f"tags.`{RUN_TAG}` LIKE '{uid}/%'"
    deleted_runs = connection.search_runs([experiment], nested, ViewType.DELETED_ONLY, max_results=1)
    return bool(deleted_runs) or "deleted" in stages


def _does_not_exist(error: Exception) -> bool:
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def _find_or_create(
    connection: "MlflowClient", experiment: str, tags: Mapping[str, str], name: str, start: int | None
) -> str:
    from mlflow.entities import ViewType

    key, value = next(iter(tags.items()))
    runs = connection.search_runs([experiment], f"tags.`{key}` = '{value}'", ViewType.ALL)
    if not runs:
        return connection.create_run(experiment, start_time=start, run_name=name, tags=dict(tags)).info.run_id
    # A server that answered too late may have created a run twice: the oldest is used, the others are empty.
    oldest, *duplicates = sorted((run.info for run in runs), key=lambda info: (info.start_time, info.run_id))
    if oldest.lifecycle_stage == "deleted":
        connection.restore_run(oldest.run_id)
    for duplicate in duplicates:
        if duplicate.lifecycle_stage != "deleted":
            connection.delete_run(duplicate.run_id)
    return oldest.run_id
