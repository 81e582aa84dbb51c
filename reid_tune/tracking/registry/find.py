"""Look-up of models, versions and aliases in a store; errors name those that exist."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.tracking.store import database, open_client, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

__all__ = [
    "NOT_FOUND_CODES",
    "require_version_with_alias",
    "all_models",
    "find_model",
    "find_model_or_none",
    "find_version",
    "version_with_alias",
    "join_names",
    "open_registry",
    "versions",
]

# Error codes of MLflow's stores for a run, model or version that does not exist.
NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def open_registry(uri: str) -> "MlflowClient":
    """Return a client of a store that exists.

    Raises:
        InputError: the file of an SQLite store does not exist.
    """
    path = database(uri)
    if path and not path.is_file():
        raise InputError(f"there is no MLflow store {path}; set MLFLOW_TRACKING_URI.")
    return open_client(uri)


def find_model(connection: "MlflowClient", model: str) -> "RegisteredModel":
    """Return a model by its name.

    Raises:
        InputError: the model does not exist.
    """
    if (registered := find_model_or_none(connection, model)) is not None:
        return registered
    names = join_names(item.name for item in all_models(connection))
    raise InputError(f"there is no model {model} in {redact(connection.tracking_uri)}; it has {names}.")


def find_model_or_none(connection: "MlflowClient", model: str) -> "RegisteredModel | None":
    """Return a model by its name; None if it does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return connection.get_registered_model(model)
    except MlflowException as error:
        if error.error_code not in NOT_FOUND_CODES:
            raise
    return None


def find_version(connection: "MlflowClient", model: str, number: str) -> "ModelVersion":
    """Return a version of a model.

    Raises:
        InputError: the model or the version does not exist.
    """
    find_model(connection, model)
    existing = versions(connection, model)
    if number not in existing:
        store = redact(connection.tracking_uri)
        raise InputError(f"the model {model} in {store} has no version {number}; it has {join_names(existing)}.")
    return existing[number]


def require_version_with_alias(connection: "MlflowClient", model: str, alias: str) -> "ModelVersion":
    """Return the version that has an alias.

    Raises:
        InputError: the model does not exist, or none of its versions has the alias.
    """
    aliases = find_model(connection, model).aliases
    if alias not in aliases:
        store = redact(connection.tracking_uri)
        raise InputError(f"the model {model} in {store} has no alias {alias}; it has {join_names(aliases)}.")
    return find_version(connection, model, str(aliases[alias]))


def version_with_alias(connection: "MlflowClient", model: str, alias: str) -> "ModelVersion | None":
    """Return the version that has an alias; None if no version has it, or a deleted one."""
    return versions(connection, model).get(str(connection.get_registered_model(model).aliases.get(alias)))


def versions(connection: "MlflowClient", model: str) -> "dict[str, ModelVersion]":
    """Return the versions of a model by number, in ascending order."""
    items = connection.search_model_versions(f"name = '{model}'")
    return {str(item.version): item for item in sorted(items, key=lambda item: int(item.version))}


def all_models(connection: "MlflowClient") -> "Iterator[RegisteredModel]":
    """Yield the models of a store in the order of their names."""
    token = None
    while True:
        page = connection.search_registered_models(page_token=token)
        yield from page
        if not (token := page.token):
            return


def join_names(names: Iterable[str]) -> str:
    """Return names in one line; `none` without any."""
    return ", ".join(names) or "none"
