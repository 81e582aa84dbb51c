"""Models, versions and aliases in a store; what is unknown is answered with what exists."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.tracking.store import client, database, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

__all__ = [
    "UNKNOWN",
    "require_version_with_alias",
    "all_models",
    "find_model",
    "find_version",
    "version_with_alias",
    "join_names",
    "open_registry",
    "versions",
]

UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def open_registry(uri: str) -> "MlflowClient":
    """A client of a store that exists.

    Raises:
        InputError: there is no file of an SQLite store.
    """
    path = database(uri)
    if path and not path.is_file():
        raise InputError(f"there is no MLflow store {path}; set MLFLOW_TRACKING_URI.")
    return client(uri)


def find_model(connection: "MlflowClient", model: str) -> "RegisteredModel":
    """The model of a name.

    Raises:
        InputError: there is none.
    """
    from mlflow.exceptions import MlflowException

    try:
        return connection.get_registered_model(model)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
    known = join_names(each.name for each in all_models(connection))
    raise InputError(f"there is no model {model} in {redact(connection.tracking_uri)}; it has {known}.")


def find_version(connection: "MlflowClient", model: str, number: str) -> "ModelVersion":
    """A version of a model.

    Raises:
        InputError: there is no such model, or it has no such version.
    """
    find_model(connection, model)
    found = versions(connection, model)
    if number not in found:
        store = redact(connection.tracking_uri)
        raise InputError(f"the model {model} in {store} has no version {number}; it has {join_names(found)}.")
    return found[number]


def require_version_with_alias(connection: "MlflowClient", model: str, alias: str) -> "ModelVersion":
    """The version that has an alias.

    Raises:
        InputError: there is no such model, or none of its versions has the alias.
    """
    aliases = find_model(connection, model).aliases
    if alias not in aliases:
        store = redact(connection.tracking_uri)
        raise InputError(f"the model {model} in {store} has no alias {alias}; it has {join_names(aliases)}.")
    return find_version(connection, model, str(aliases[alias]))


def version_with_alias(connection: "MlflowClient", model: str, alias: str) -> "ModelVersion | None":
    """The version that has an alias; stores may keep the alias of a deleted one."""
    return versions(connection, model).get(str(connection.get_registered_model(model).aliases.get(alias)))


def versions(connection: "MlflowClient", model: str) -> "dict[str, ModelVersion]":
    """The versions of a model by number, the first one first."""
    found = connection.search_model_versions(f"name = '{model}'")
    return {str(each.version): each for each in sorted(found, key=lambda each: int(each.version))}


def all_models(connection: "MlflowClient") -> "Iterator[RegisteredModel]":
    """The models of a store by name."""
    token = None
    while True:
        page = connection.search_registered_models(page_token=token)
        yield from page
        if not (token := page.token):
            return


def join_names(names: Iterable[str]) -> str:
    """Names in one line."""
    return ", ".join(names) or "none"
