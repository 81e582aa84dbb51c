"""What is registered, for people and for programs."""

from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from reid_tune.errors import InputError
from reid_tune.tracking.registry.find import (
    all_models,
    find_model,
    find_version,
    open_registry,
    require_version_with_alias,
    versions,
)
from reid_tune.tracking.registry.history import alias_histories
from reid_tune.tracking.store import translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["list_versions", "show_version"]


def list_versions(uri: str) -> list[dict[str, Any]]:
    """All versions by model, the newest first.

    Each has `model`, `version`, `aliases`, `mAP` and `Rank-1` (fractions on test, plain, or None), `sweep` (or None)
    and `created` in seconds since the epoch.

    Raises:
        InputError: there is no file of an SQLite store.
        InfrastructureError: the store does not answer.
    """
    with translate_errors(uri):
        connection = open_registry(uri)
        models = [(model.aliases, versions(connection, model.name)) for model in all_models(connection)]
        return [_line(each, aliases) for aliases, found in models for each in reversed(found.values())]


def show_version(uri: str, reference: str) -> dict[str, Any]:
    """All about a version: what `list_versions` has, and `run`, `source`, `files`, `tags`, `description`, `history`.

    `history` has for each alias of the model all turns, the first one first, with `time` in seconds since the epoch.

    Args:
        reference: NAME@ALIAS, NAME/VERSION, or NAME: its champion, else its newest version.

    Raises:
        InputError: there is no such store, model, version or alias.
        InfrastructureError: the store does not answer.
    """
    with translate_errors(uri):
        connection = open_registry(uri)
        version = _named(connection, reference.removeprefix("models:/"))
        model = find_model(connection, version.name)
        history = alias_histories(connection, model.name)
        return {
            **_line(version, model.aliases),
            "run": version.run_id,
            "source": (source := connection.get_model_version_download_uri(model.name, str(version.version))),
            "files": _files(source, connection.tracking_uri),
            "tags": dict(version.tags),
            "description": version.description or "",
            "history": {
                alias: [asdict(turn) | {"time": turn.time / 1000} for turn in turns] for alias, turns in history.items()
            },
        }


def _named(connection: "MlflowClient", reference: str) -> "ModelVersion":
    name, at, alias = reference.partition("@")
    if at:
        return require_version_with_alias(connection, name, alias)
    name, slash, number = reference.partition("/")
    if slash:
        return find_version(connection, name, number)
    model, found = find_model(connection, name), versions(connection, name)
    if not found:
        raise InputError(f"the model {name} has no versions.")
    return found.get(str(model.aliases.get("champion"))) or list(found.values())[-1]


def _line(version: "ModelVersion", aliases: dict[str, Any]) -> dict[str, Any]:
    scores = {name: version.tags.get(f"test/{name}") for name in ("mAP", "Rank-1")}
    return {
        "model": version.name,
        "version": int(version.version),
        "aliases": sorted(alias for alias, number in aliases.items() if str(number) == str(version.version)),
        **{name: text and float(text) for name, text in scores.items()},
        "sweep": version.tags.get("sweep"),
        "created": version.creation_timestamp / 1000,
    }


def _files(source: str, uri: str) -> list[str]:
    from mlflow.artifacts import list_artifacts

    return sorted(PurePosixPath(file.path).name for file in list_artifacts(source, tracking_uri=uri))
