"""Who had an alias, since when and why: a tag of the model for each change, written before the alias moves."""

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reid_tune.tracking.registry.find import version_with_alias

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

__all__ = ["AliasChange", "move_alias", "alias_histories", "alias_holders", "alias_history"]

_TAG = "reid_tune.history"


@dataclass(frozen=True)
class AliasChange:
    """A version was given an alias.

    Attributes:
        time: Milliseconds since the epoch.
        back: Whether the alias went back to this version, over those that had it since.
    """

    version: int
    time: int
    reason: str
    back: bool = False


def alias_history(connection: "MlflowClient", model: str, alias: str) -> list[AliasChange]:
    """The history of an alias up to now; where it was moved by other means, that is the last turn."""
    turns = _recorded(connection.get_registered_model(model), alias)
    version = version_with_alias(connection, model, alias)
    had = alias_holders(turns)
    if version is None or had[-1:] == [int(version.version)]:
        return turns
    back = had[-2:-1] == [int(version.version)]
    return [*turns, AliasChange(int(version.version), _now(turns), "found here; it was moved by other means", back)]


def alias_histories(connection: "MlflowClient", model: str) -> dict[str, list[AliasChange]]:
    """Those of all aliases that a version of the model has or had, by alias."""
    found = connection.get_registered_model(model)
    once = {key.removeprefix(f"{_TAG}.").partition(".")[0] for key in found.tags if key.startswith(f"{_TAG}.")}
    return {alias: alias_history(connection, model, alias) for alias in sorted(once | set(found.aliases))}


def alias_holders(turns: list[AliasChange]) -> list[int]:
    """The versions that had an alias, the last one last; over what a rollback has left behind it is closed."""
    found: list[int] = []
    for turn in turns:
        while turn.back and found and found[-1] != turn.version:
            found.pop()
        if found[-1:] != [turn.version]:
            found.append(turn.version)
    return found


def move_alias(
    connection: "MlflowClient", model: str, alias: str, version: int, reason: str, *, back: bool = False
) -> None:
    """Give an alias to a version; after a crash in between, the same call completes it."""
    recorded = _recorded(connection.get_registered_model(model), alias)
    if alias_holders(recorded)[-1:] != [version]:
        turns = alias_history(connection, model, alias)
        turns.append(AliasChange(version, _now(turns), reason, back))
        for turn in turns[len(recorded) :]:
            value = json.dumps({"version": turn.version, "reason": turn.reason, "back": turn.back})
            connection.set_registered_model_tag(model, f"{_TAG}.{alias}.{turn.time}", value)
    connection.set_registered_model_alias(model, alias, str(version))


def _recorded(model: "RegisteredModel", alias: str) -> list[AliasChange]:
    start = f"{_TAG}.{alias}."
    found = {
        int(key.removeprefix(start)): json.loads(text) for key, text in model.tags.items() if key.startswith(start)
    }
    return [AliasChange(time=moment, **found[moment]) for moment in sorted(found)]


def _now(turns: list[AliasChange]) -> int:
    """Behind all others, whatever the clocks of several machines say."""
    return max([time.time_ns() // 1_000_000, *(turn.time + 1 for turn in turns)])
