"""Configurations that a user gives, to be tried before the sampler's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reid_tune.config.experiment import canonical_key
from reid_tune.config.load import LEAVES, nearest_key, with_parameters
from reid_tune.errors import InputError
from reid_tune.journal.store import load_state
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.parse import typed_value

__all__ = ["TRIALS_PER_SWEEP", "InitialPoint", "parse_user_point", "initial_points"]

# Trials that are taken over from one earlier sweep.
TRIALS_PER_SWEEP = 5


@dataclass(frozen=True)
class InitialPoint:
    """A configuration to try.

    Attributes:
        parameters: Values of all keys that are searched in it; they may lie outside the ranges.
        origin: Where it comes from: NAME/7 is a trial of an earlier sweep, `start_from` the file itself.
    """

    parameters: dict[str, Any]
    origin: str


def initial_points(sweep: SweepConfig) -> tuple[list[InitialPoint], list[str]]:
    """What `search.start_from` names, in its order, without the spec's own configuration and without duplicates.

    Returns:
        The configurations, and a sentence on each trial of an earlier sweep that cannot be taken over.

    Raises:
        InputError: an earlier sweep that does not exist, has no full-length trial or another metric, or a mapping that
            is no configuration of this space.
    """
    entries, source = sweep.file.search.start_from, f"{sweep.source}: search.start_from"
    found, warnings = list[InitialPoint](), list[str]()
    for entry in (entries,) if isinstance(entries, str) else entries:
        if isinstance(entry, str):
            found += _best_of(sweep, entry, source, warnings)
        else:
            found.append(InitialPoint(parse_user_point(sweep, entry, source), "start_from"))
    kept, known = [], [sweep.space.base]
    for given in found:
        if (whole := sweep.space.base | given.parameters) not in known:
            kept.append(given)
            known.append(whole)
    return kept, warnings


def parse_user_point(sweep: SweepConfig, pairs: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The configuration in which some searched keys have given values, and the others the spec's.

    Args:
        pairs: Values by key.
        source: Names the user's text in messages.

    Raises:
        InputError: a key that trials do not search, an invalid value, or a broken constraint.
    """
    searched = [parameter.key for parameter in sweep.space.parameters]
    values: dict[str, Any] = {}
    for key, value in pairs.items():
        name = canonical_key(str(key))
        if name not in LEAVES:
            near = nearest_key(name)
            raise InputError(f"{source}: unknown key {key}" + (f"; did you mean {near}?" if near else "."))
        if name not in searched:
            raise InputError(f"{source}: {key} is not searched by trials, which differ in {', '.join(searched)} only.")
        if name in values:
            raise InputError(f"{source}: {key} is given twice (an alias is a second spelling): keep one.")
        values[name] = typed_value(name, value)
    parameters = sweep.space.complete(values)
    for key, value in values.items():
        if key not in parameters:
            raise InputError(f"{source}: {key} is not searched with these values, its `when` does not hold: remove it.")
        if parameters[key] != value:
            raise InputError(f"{source}: {key} = {value!r}: the space sets it to {parameters[key]!r} in all trials.")
    _check(sweep, parameters, source)
    return parameters


def _best_of(sweep: SweepConfig, name: str, source: str, warnings: list[str]) -> list[InitialPoint]:
    if name == sweep.file.name:
        raise InputError(f"{source}: {name} is this sweep itself: name an earlier one.")
    try:
        state = load_state(name, str(sweep.folder.parent))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    if state.metric != sweep.file.metric:
        raise InputError(
            f"{source}: {name} has {state.metric} as its objective, this sweep {sweep.file.metric}: "
            "set objective.metric to the same, or name another sweep."
        )
    best = state.finished()[:TRIALS_PER_SWEEP]
    if not best:
        raise InputError(f"{source}: {name} has no full-length trial: name another sweep.")
    found = []
    for trial in best:
        parameters = sweep.space.complete(state.header.spec | trial.parameters)
        try:
            _check(sweep, parameters, f"trial {name}/{trial.number} is left out")
            found.append(InitialPoint(parameters, f"{name}/{trial.number}"))
        except InputError as error:
            warnings.append(" ".join(str(error).split()))
    return found


def _check(sweep: SweepConfig, parameters: Mapping[str, Any], source: str) -> None:
    with_parameters(sweep.experiment, parameters, source)
    if broken := sweep.space.broken_constraints(parameters):
        raise InputError(f"{source}: it breaks the constraint {broken[0].text}.")
