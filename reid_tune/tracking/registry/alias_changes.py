"""History of the aliases of a model: a tag of the model for each change, written before the alias moves."""

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.tracking.registry.find import version_with_alias

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

__all__ = ["AliasChange", "move_alias", "alias_histories", "alias_holders", "alias_history"]

_TAG = "reid_tune.history"


@dataclass(frozen=True)
class AliasChange:
    """A version got an alias.

    Attributes:
        version: Number of the version.
        time: Milliseconds since the epoch.
        reason: Reason as text.
        is_rollback: Whether the alias went back to this version from those that had it later.
    """

    version: int
    time: int
    reason: str
    is_rollback: bool = False


def alias_history(connection: "MlflowClient", model: str, alias: str) -> list[AliasChange]:
    """Return all changes of an alias; the last one may be a change by other means, which is not recorded yet.

    Raises:
        InputError: somebody has changed the tags that record them.
    """
    changes = _recorded_changes(connection.get_registered_model(model), alias)
    version = version_with_alias(connection, model, alias)
    holders = alias_holders(changes)
    if version is None or holders[-1:] == [int(version.version)]:
        return changes
    is_rollback = holders[-2:-1] == [int(version.version)]
    reason = "moved by other means than reid-tune"
    return [*changes, AliasChange(int(version.version), _next_time(changes), reason, is_rollback)]


def alias_histories(connection: "MlflowClient", model: str) -> dict[str, list[AliasChange]]:
    """Return the histories of all aliases that a version of the model has or had, by alias."""
    registered = connection.get_registered_model(model)
    recorded = {key.removeprefix(f"{_TAG}.").partition(".")[0] for key in registered.tags if key.startswith(f"{_TAG}.")}
    return {alias: alias_history(connection, model, alias) for alias in sorted(recorded | set(registered.aliases))}


def alias_holders(changes: list[AliasChange]) -> list[int]:
    """Return the versions that had an alias, the current one last, without those from which it was rolled back."""
    holders: list[int] = []
    for change in changes:
        while change.is_rollback and holders and holders[-1] != change.version:
            holders.pop()
        if holders[-1:] != [change.version]:
            holders.append(change.version)
    return holders


def move_alias(
    connection: "MlflowClient", model: str, alias: str, version: int, reason: str, *, is_rollback: bool = False
) -> None:
    """Give an alias to a version; after a crash, the same call completes the change."""
    recorded = _recorded_changes(connection.get_registered_model(model), alias)
    if alias_holders(recorded)[-1:] != [version]:
        changes = alias_history(connection, model, alias)
        changes.append(AliasChange(version, _next_time(changes), reason, is_rollback))
        for change in changes[len(recorded) :]:
            value = {"version": change.version, "reason": change.reason, "is_rollback": change.is_rollback}
            connection.set_registered_model_tag(model, f"{_TAG}.{alias}.{change.time}", json.dumps(value))
    connection.set_registered_model_alias(model, alias, str(version))


def _recorded_changes(model: "RegisteredModel", alias: str) -> list[AliasChange]:
    prefix = f"{_TAG}.{alias}."
    changes = [_parse_change(model, key, prefix) for key in model.tags if key.startswith(prefix)]
    return sorted(changes, key=lambda change: change.time)


def _parse_change(model: "RegisteredModel", key: str, prefix: str) -> AliasChange:
    text = model.tags[key]
    try:
        match json.loads(text):
            case {"version": int(version), "reason": str(reason), "is_rollback": bool(is_rollback)}:
                return AliasChange(version, int(key.removeprefix(prefix)), reason, is_rollback)
    except (ValueError, RecursionError):
        pass
    raise InputError(
        f"the tag {key[:200]!r} of the model {model.name} has been changed, and is not a record of an alias: "
        f"{text[:80]!r}: correct or delete it."
    )


def _next_time(changes: list[AliasChange]) -> int:
    """Return the current time, but one after all changes, as the clocks of machines differ."""
    return max([time.time_ns() // 1_000_000, *(change.time + 1 for change in changes)])
