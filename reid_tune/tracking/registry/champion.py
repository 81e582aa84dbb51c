"""The spec of the version that has an alias, which the next sweep trains again."""

from pathlib import Path

from reid_tune.errors import InfrastructureError
from reid_tune.storage.temporary_folder import temporary_folder
from reid_tune.tracking.registry.find import find_model_or_none, version_with_alias
from reid_tune.tracking.store import client, connection_error, database, translate_errors

__all__ = ["SPEC_FILE", "read_champion_spec"]

SPEC_FILE = "spec.yaml"  # one of the files of a registered version


def read_champion_spec(uri: str, model: str, alias: str) -> tuple[int, str | None] | None:
    """Return the number of the version that has an alias, and its spec as YAML, None if its files have no spec.

    Returns:
        None if the store, the model or the alias does not exist.

    Raises:
        InfrastructureError: the store does not answer.
    """
    path = database(uri)
    if path and not path.is_file():
        return None
    if reason := connection_error(uri):  # A sweep does not wait for a server that is busy.
        raise InfrastructureError(reason)
    with translate_errors(uri):
        connection = client(uri)
        if find_model_or_none(connection, model) is None:
            return None
        version = version_with_alias(connection, model, alias)
        if version is None:
            return None
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        source = connection.get_model_version_download_uri(model, str(version.version))
        with temporary_folder() as folder:
            try:
                file = download_artifacts(f"{source}/{SPEC_FILE}", dst_path=str(folder), tracking_uri=uri)
                return int(version.version), Path(file).read_text(encoding="utf-8")
            except (MlflowException, OSError, UnicodeDecodeError):
                return int(version.version), None
