"""An alias moves: to a better version, or back to the one that had it before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.tracking.promotion import compare_with_champion, registered_repeats
from reid_tune.tracking.registry.find import (
    find_model,
    find_version,
    join_names,
    open_registry,
    version_with_alias,
    versions,
)
from reid_tune.tracking.registry.history import alias_history, alias_holders, move_alias
from reid_tune.tracking.registry.names import check_alias
from reid_tune.tracking.store import translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["CHALLENGER", "AliasMove", "promote", "rollback"]

CHALLENGER = "challenger"


@dataclass(frozen=True)
class AliasMove:
    """An alias that a version has been given, and why."""

    model: str
    alias: str
    version: int
    reason: str

    def __str__(self) -> str:
        return f"models:/{self.model}@{self.alias} is version {self.version} now: {self.reason}"


def promote(uri: str, model: str, version: int, alias: str = "champion", *, force: bool = False) -> AliasMove:
    """Give an alias to a version that beats the one that has it, see `compare_with_champion`.

    The alias `challenger` is removed from that version.

    Args:
        force: give it also where the gate is not passed.

    Raises:
        InputError: model or version are unknown, the alias cannot be one, or the gate is not passed.
        InfrastructureError: the store does not answer.
    """
    check_alias(alias)
    with translate_errors(uri):
        connection = open_registry(uri)
        own = find_version(connection, model, str(version))
        other = version_with_alias(connection, model, alias)
        if other is not None and int(other.version) == version:
            reason = "it has had the alias already"
        else:
            verdict = compare_with_champion(connection, registered_repeats(connection, own), other)
            reason = verdict.reason
            if not verdict.passed and not force:
                raise InputError(
                    f"version {version} of {model} does not become {alias}: {reason}; --force does it anyway."
                )
            move_alias(connection, model, alias, version, reason if verdict.passed else f"by force: {reason}")
        _retire(connection, model, alias, version)
    return AliasMove(model, alias, version, reason)


def rollback(uri: str, model: str, alias: str = "champion") -> AliasMove:
    """Give an alias back to the version that had it before the present one; deleted versions are passed over.

    Raises:
        InputError: there is no such model or alias, or no other version had the alias before.
        InfrastructureError: the store does not answer.
    """
    with translate_errors(uri):
        connection = open_registry(uri)
        aliases, there = find_model(connection, model).aliases, versions(connection, model)
        had = alias_holders(alias_history(connection, model, alias))
        if not had:
            raise InputError(f"the model {model} has no alias {alias}; it has {join_names(aliases)}.")
        present = version_with_alias(connection, model, alias)
        number = int(present.version) if present else None
        before = [each for each in had if str(each) in there and each != number]
        if not before:
            raise InputError(
                f"no other version of {model} that exists had the alias {alias} before; it has {join_names(there)}."
            )
        reason = f"rolled back from version {number}" if number else f"no version had the alias {alias} any more"
        move_alias(connection, model, alias, before[-1], reason, back=True)
    return AliasMove(model, alias, before[-1], reason)


def _retire(connection: "MlflowClient", model: str, alias: str, version: int) -> None:
    challenger = version_with_alias(connection, model, CHALLENGER)
    if alias != CHALLENGER and challenger is not None and int(challenger.version) == version:
        connection.delete_registered_model_alias(model, CHALLENGER)
