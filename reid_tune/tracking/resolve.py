"""`models:/NAME@ALIAS`, `models:/NAME/VERSION` and `runs:/ID/PATH` as local files."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.tracking.store import answering, client, database, public

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["resolve"]

UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def resolve(text: str, uri: str) -> Path:
    """The local file or folder behind an address in the store `uri`, downloaded where the store is remote.

    A registered version is a folder with `model.onnx`, `checkpoint.pth` and `spec.yaml`; it is not to be written.

    Raises:
        InputError: not such an address, or nothing is there; the message names what is.
        InfrastructureError: the store does not answer.
    """
    path = database(uri)
    if path and not path.is_file():
        raise InputError(f"cannot find {text}: there is no MLflow store {path}; set MLFLOW_TRACKING_URI.")
    with answering(uri):
        source = _source(client(uri), text, public(uri))
        if source.startswith("/") and not Path(source).exists():
            raise InputError(f"{text} is registered, but its files are gone from {source}.")
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(source, tracking_uri=uri))


def _source(connection: "MlflowClient", text: str, store: str) -> str:
    if match := re.fullmatch(r"models:/([^/@]+)@([\w-]+)", text):
        return _version(connection, match[1], _aliased(connection, match[1], match[2], store), store)
    if match := re.fullmatch(r"models:/([^/@]+)/(\d+)", text):
        return _version(connection, match[1], match[2], store)
    match = re.fullmatch(r"runs:/(\w+)/(.+)", text)
    if match and ".." not in PurePosixPath(match[2]).parts:
        return _artifact(connection, match[1], PurePosixPath(match[2]), store)
    raise InputError(f"{text} is not an address: use models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID/PATH.")


def _aliased(connection: "MlflowClient", model: str, alias: str, store: str) -> str:
    aliases = _aliases(connection, model, store)
    if alias not in aliases:
        raise InputError(f"the model {model} in {store} has no alias {alias}; it has {_listed(aliases)}.")
    return aliases[alias]


def _version(connection: "MlflowClient", model: str, version: str, store: str) -> str:
    _aliases(connection, model, store)
    versions = {str(each.version): each for each in connection.search_model_versions(f"name = '{model}'")}
    if version not in versions:
        known = _listed(sorted(versions, key=int))
        raise InputError(f"the model {model} in {store} has no version {version}; it has {known}.")
    return connection.get_model_version_download_uri(model, version)


def _aliases(connection: "MlflowClient", model: str, store: str) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(version) for alias, version in connection.get_registered_model(model).aliases.items()}
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
    models = _listed(each.name for each in connection.search_registered_models())
    raise InputError(f"there is no model {model} in {store}; it has {models}.")


def _artifact(connection: "MlflowClient", run: str, path: PurePosixPath, store: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        root = connection.get_run(run).info.artifact_uri
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
        raise InputError(f"there is no run {run} in {store}; its latest are {_latest(connection)}.") from None
    folder = None if path.parent == PurePosixPath(".") else str(path.parent)
    paths = [artifact.path for artifact in connection.list_artifacts(run, folder)]
    if str(path) not in paths:
        raise InputError(f"the run {run} in {store} has no {path}; there it has {_listed(paths)}.")
    return f"{root}/{path}"


def _latest(connection: "MlflowClient") -> str:
    experiments = [experiment.experiment_id for experiment in connection.search_experiments()]
    runs = connection.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=5)
    return _listed(f"{run.info.run_id} ({run.info.run_name})" for run in runs)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
