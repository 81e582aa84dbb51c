"""Registered versions as dictionaries, for tables and for JSON."""

import math
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from reid_tune.errors import InputError
from reid_tune.tracking.champion_comparison import comparison_count
from reid_tune.tracking.registry.alias_changes import alias_histories
from reid_tune.tracking.registry.find import (
    all_models,
    find_model,
    find_version,
    open_registry,
    require_version_with_alias,
    versions,
)
from reid_tune.tracking.store import redact, translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["list_versions", "show_version"]


def list_versions(uri: str) -> list[dict[str, Any]]:
    """Return all versions by model, the newest first.

    Keys are `model`, `version`, `aliases`, `mAP` and `Rank-1` (fractions on the test set without re-ranking, or None),
    `sweep` (or None), and `created` in seconds since the epoch.

    Raises:
        InputError: the file of an SQLite store does not exist.
        InfrastructureError: the store does not answer.
    """
    with translate_errors(uri):
        connection = open_registry(uri)
        models = [(model.aliases, versions(connection, model.name)) for model in all_models(connection)]
        return [_summary(item, aliases) for aliases, items in models for item in reversed(items.values())]


def show_version(uri: str, reference: str) -> dict[str, Any]:
    """Return the details of a version.

    Keys are those of `list_versions`, and `run`, `source`, `files`, `tags`, `description`, `history` and `comparisons`,
    the number of versions that were compared with it. The history has all changes of each alias of the model, in their
    order, with `time` in seconds since the epoch.

    Args:
        reference: NAME@ALIAS, NAME/VERSION, or NAME for its champion, or for its newest version without a champion.

    Raises:
        InputError: the store, model, version or alias does not exist.
        InfrastructureError: the store does not answer.
    """
    with translate_errors(uri):
        connection = open_registry(uri)
        version = _find(connection, reference.removeprefix("models:/"))
        model = find_model(connection, version.name)
        history = alias_histories(connection, model.name)
        return {
            **_summary(version, model.aliases),
            "run": version.run_id,
            "source": redact(source := connection.get_model_version_download_uri(model.name, str(version.version))),
            "files": _files(source, connection.tracking_uri),
            "tags": dict(version.tags),
            "description": version.description or "",
            "comparisons": comparison_count(version.tags),
            "history": {
                alias: [asdict(change) | {"time": change.time / 1000} for change in changes]
                for alias, changes in history.items()
            },
        }


def _find(connection: "MlflowClient", reference: str) -> "ModelVersion":
    name, at, alias = reference.partition("@")
    if at:
        return require_version_with_alias(connection, name, alias)
    name, slash, number = reference.partition("/")
    if slash:
        return find_version(connection, name, number)
    model, existing = find_model(connection, name), versions(connection, name)
    if not existing:
        raise InputError(f"the model {name} has no versions.")
    return existing.get(str(model.aliases.get("champion"))) or list(existing.values())[-1]


def _summary(version: "ModelVersion", aliases: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": version.name,
        "version": int(version.version),
        "aliases": sorted(alias for alias, number in aliases.items() if str(number) == str(version.version)),
        **{name: _score(version.tags.get(f"test/{name}")) for name in ("mAP", "Rank-1")},
        "sweep": version.tags.get("sweep"),
        "created": version.creation_timestamp / 1000,
    }


def _score(text: str | None) -> float | None:
    """Return the score in a tag; None without one, or if somebody has replaced it by another text."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _files(source: str, uri: str) -> list[str]:
    from mlflow.artifacts import list_artifacts

    return sorted(PurePosixPath(file.path).name for file in list_artifacts(source, tracking_uri=uri))
