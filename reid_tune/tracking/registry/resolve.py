"""Local files of the addresses `models:/NAME@ALIAS`, `models:/NAME/VERSION` and `runs:/ID/PATH`."""

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from reid_tune.errors import InputError, error_context
from reid_tune.tracking.registry.find import (
    NOT_FOUND_CODES,
    find_version,
    join_names,
    open_registry,
    require_version_with_alias,
)
from reid_tune.tracking.store import redact, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["resolve"]


def resolve(text: str, uri: str) -> Path:
    """Return the local file or folder of an address in the store `uri`, downloaded if the store is remote.

    A registered version is a folder with `model.onnx`, `checkpoint.pth` and `spec.yaml`, which must not be changed.

    Raises:
        InputError: the address is not valid, or nothing is stored there; the message names what is stored.
        InfrastructureError: the store does not answer.
    """
    with translate_errors(uri), error_context(text):
        source = _source(open_registry(uri), text, redact(uri))
        if source.startswith("/") and not Path(source).exists():
            raise InputError(f"{text} is registered, but its files are missing in {source}.")
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(source, tracking_uri=uri))


def _source(connection: "MlflowClient", text: str, store: str) -> str:
    if match := re.fullmatch(r"models:/([^/@]+)@([\w-]+)", text):
        return _files(connection, require_version_with_alias(connection, match[1], match[2]))
    if match := re.fullmatch(r"models:/([^/@]+)/(\d+)", text):
        return _files(connection, find_version(connection, match[1], match[2]))
    match = re.fullmatch(r"runs:/(\w+)/(.+)", text)
    if match and ".." not in PurePosixPath(match[2]).parts:
        return _artifact(connection, match[1], PurePosixPath(match[2]), store)
    raise InputError(f"{text} is not an address: use models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/PATH.")


def _files(connection: "MlflowClient", version: "ModelVersion") -> str:
    return connection.get_model_version_download_uri(version.name, str(version.version))


def _artifact(connection: "MlflowClient", run: str, path: PurePosixPath, store: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        root = connection.get_run(run).info.artifact_uri
    except MlflowException as error:
        if error.error_code not in NOT_FOUND_CODES:
            raise
        raise InputError(f"there is no run {run} in {store}; the latest runs are {_latest_runs(connection)}.") from None
    folder = None if path.parent == PurePosixPath(".") else str(path.parent)
    paths = [artifact.path for artifact in connection.list_artifacts(run, folder)]
    if str(path) not in paths:
        raise InputError(f"the run {run} in {store} has no {path}; in this folder it has {join_names(paths)}.")
    return f"{root}/{path}"


def _latest_runs(connection: "MlflowClient") -> str:
    experiments = [experiment.experiment_id for experiment in connection.search_experiments()]
    runs = connection.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=5)
    return join_names(f"{run.info.run_id} ({run.info.run_name})" for run in runs)
