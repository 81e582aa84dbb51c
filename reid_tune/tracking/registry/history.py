"""Who had an alias, since when and why: a tag of the model for each change, written before the alias moves."""

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reid_tune.tracking.registry.find import holder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

__all__ = ["Turn", "give", "histories", "succession", "turns_of"]

_TAG = "reid_tune.history"


@dataclass(frozen=True)
class Turn:
    """A version was given an alias.

    Attributes:
        time: Milliseconds since the epoch.
        back: Whether the alias went back to this version, over those that had it since.
    """

    version: int
    time: int
    reason: str
    back: bool = False


def turns_of(connection: "MlflowClient", model: str, alias: str) -> list[Turn]:
    """The history of an alias up to now; where it was moved by other means, that is the last turn."""
    turns = _recorded(connection.get_registered_model(model), alias)
    version = holder(connection, model, alias)
    had = succession(turns)
    if version is None or had[-1:] == [int(version.version)]:
        return turns
    back = had[-2:-1] == [int(version.version)]
    return [*turns, Turn(int(version.version), _now(turns), "found here; it was moved by other means", back)]


def histories(connection: "MlflowClient", model: str) -> dict[str, list[Turn]]:
    """Those of all aliases that a version of the model has or had, by alias."""
    found = connection.get_registered_model(model)
    once = {key.removeprefix(f"{_TAG}.").partition(".")[0] for key in found.tags if key.startswith(f"{_TAG}.")}
    return {alias: turns_of(connection, model, alias) for alias in sorted(once | set(found.aliases))}


def succession(turns: list[Turn]) -> list[int]:
    """The versions that had an alias, the last one last; over what a rollback has left behind it is closed."""
    found: list[int] = []
    for turn in turns:
        while turn.back and found and found[-1] != turn.version:
            found.pop()
        if found[-1:] != [turn.version]:
            found.append(turn.version)
    return found


def give(connection: "MlflowClient", model: str, alias: str, version: int, reason: str, *, back: bool = False) -> None:
    """Give an alias to a version; after a crash in between, the same call completes it."""
    recorded = _recorded(connection.get_registered_model(model), alias)
    if succession(recorded)[-1:] != [version]:
        turns = turns_of(connection, model, alias)
        turns.append(Turn(version, _now(turns), reason, back))
        for turn in turns[len(recorded) :]:
            value = json.dumps({"version": turn.version, "reason": turn.reason, "back": turn.back})
            connection.set_registered_model_tag(model, f"{_TAG}.{alias}.{turn.time}", value)
    connection.set_registered_model_alias(model, alias, str(version))


def _recorded(model: "RegisteredModel", alias: str) -> list[Turn]:
    start = f"{_TAG}.{alias}."
    found = {
        int(key.removeprefix(start)): json.loads(text) for key, text in model.tags.items() if key.startswith(start)
    }
    return [Turn(time=moment, **found[moment]) for moment in sorted(found)]


def _now(turns: list[Turn]) -> int:
    """Behind all others, whatever the clocks of several machines say."""
    return max([time.time_ns() // 1_000_000, *(turn.time + 1 for turn in turns)])
