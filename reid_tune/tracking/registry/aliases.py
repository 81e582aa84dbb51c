"""Moving an alias to a better version, or back to the version that had it before."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reid_tune.errors import InputError
from reid_tune.tracking.champion_comparison import COMPARISON_TAG, judge, parse_verdict
from reid_tune.tracking.mlflow_names import user
from reid_tune.tracking.registry.alias_changes import alias_history, alias_holders, move_alias
from reid_tune.tracking.registry.find import (
    find_model,
    find_version,
    join_names,
    open_registry,
    version_with_alias,
    versions,
)
from reid_tune.tracking.registry.names import check_alias
from reid_tune.tracking.store import translate_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["CHALLENGER", "AliasMove", "promote", "rollback"]

CHALLENGER = "challenger"


@dataclass(frozen=True)
class AliasMove:
    """An alias that a version has got, and the reason."""

    model: str
    alias: str
    version: int
    reason: str

    def __str__(self) -> str:
        return f"models:/{self.model}@{self.alias} is version {self.version} now: {self.reason}"


def promote(uri: str, model: str, version: int, alias: str = "champion", *, forced: str | None = None) -> AliasMove:
    """Give an alias to a version whose sweep has compared it with the version that has it, and accepted it.

    The alias `challenger` is removed from the promoted version.

    Args:
        forced: Reason of the user to move the alias even if the version is not accepted, which is recorded with the
            user's name; None to refuse such a version.

    Raises:
        InputError: the model or the version does not exist, the alias is not valid, the version is not accepted, or
            the reason of the user is empty.
        InfrastructureError: the store does not answer.
    """
    check_alias(alias)
    if forced is not None and not forced.strip():
        raise InputError("--force needs a reason, which the registry records: --force REASON.")
    with translate_errors(uri):
        connection = open_registry(uri)
        candidate = find_version(connection, model, str(version))
        incumbent = version_with_alias(connection, model, alias)
        if incumbent is not None and int(incumbent.version) == version:
            reason = "it had the alias already"
        else:
            comparison = parse_verdict(model, candidate.tags, COMPARISON_TAG)
            verdict = judge(comparison, int(incumbent.version) if incumbent else None)
            reason = verdict.reason
            if not verdict.is_accepted and forced is None:
                raise InputError(
                    f"version {version} of {model} does not become {alias}: {reason}; --force REASON does it anyway."
                )
            if not verdict.is_accepted:
                reason = f"forced by {user() or 'an unknown user'}: {forced} (the check: {reason})"
            move_alias(connection, model, alias, version, reason)
        _remove_challenger_alias(connection, model, alias, version)
    return AliasMove(model, alias, version, reason)


def rollback(uri: str, model: str, alias: str = "champion") -> AliasMove:
    """Give an alias back to the version that had it before the current one; deleted versions are skipped.

    Raises:
        InputError: the model or the alias does not exist, or no other version had the alias before.
        InfrastructureError: the store does not answer.
    """
    with translate_errors(uri):
        connection = open_registry(uri)
        aliases, existing = find_model(connection, model).aliases, versions(connection, model)
        holders = alias_holders(alias_history(connection, model, alias))
        if not holders:
            raise InputError(f"the model {model} has no alias {alias}; it has {join_names(aliases)}.")
        incumbent = version_with_alias(connection, model, alias)
        current = int(incumbent.version) if incumbent else None
        candidates = [number for number in holders if str(number) in existing and number != current]
        if not candidates:
            raise InputError(
                f"no other version of {model} that exists had the alias {alias} before; it has {join_names(existing)}."
            )
        reason = f"rolled back from version {current}" if current else f"no version had the alias {alias} any more"
        move_alias(connection, model, alias, candidates[-1], reason, is_rollback=True)
    return AliasMove(model, alias, candidates[-1], reason)


def _remove_challenger_alias(connection: "MlflowClient", model: str, alias: str, version: int) -> None:
    challenger = version_with_alias(connection, model, CHALLENGER)
    if alias != CHALLENGER and challenger is not None and int(challenger.version) == version:
        connection.delete_registered_model_alias(model, CHALLENGER)
