"""Warm start: initial configurations of the user or of another sweep, which run before those of the sampler."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reid_tune.config.experiment import canonical_key
from reid_tune.config.keys import LEAVES, is_bundle_key, nearest_key, spec_values
from reid_tune.config.load import with_parameters
from reid_tune.errors import InputError
from reid_tune.journal.state import RunState, SweepState
from reid_tune.journal.sweep_lookup import load_state
from reid_tune.search.configurations import KnownConfigurations
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.parse import typed_value
from reid_tune.search_space.weights import WEIGHTS_KEY

__all__ = [
    "TRIALS_PER_SWEEP",
    "InitialPoint",
    "earlier_values",
    "initial_points",
    "load_earlier_sweep",
    "parse_user_point",
]

# Number of trials that are used of one earlier sweep.
TRIALS_PER_SWEEP = 5


@dataclass(frozen=True)
class InitialPoint:
    """An initial configuration.

    Attributes:
        parameters: Values of all keys that are searched in it. They may be outside of the ranges.
        origin: Origin: NAME/7 is a trial of an earlier sweep, `start_from` the search-space file.
    """

    parameters: dict[str, Any]
    origin: str


def initial_points(sweep: SweepConfig, pretrained: Mapping[str, str] = {}) -> tuple[list[InitialPoint], list[str]]:
    """Return the configurations that `search.start_from` names, in its order.

    The spec's own configuration and duplicates are left out.

    Args:
        sweep: Sweep with the space.
        pretrained: By file of its pretrained weights the SHA-256 digest.

    Returns:
        The configurations, and a warning for each trial of an earlier sweep that is invalid in this one.

    Raises:
        InputError: an earlier sweep does not exist, has no full-length trial or has another metric, or a mapping is not
            a configuration of this space.
    """
    entries, source = sweep.file.search.start_from, f"{sweep.source}: search.start_from"
    points, warnings = list[InitialPoint](), list[str]()
    for entry in (entries,) if isinstance(entries, str) else entries:
        if isinstance(entry, str):
            points += _best_of(sweep, entry, source, pretrained, warnings)
        else:
            points.append(InitialPoint(parse_user_point(sweep, entry, source), "start_from"))
    distinct, configurations = [], KnownConfigurations(sweep)
    for point in points:
        if point.parameters not in configurations:
            distinct.append(point)
            configurations.add(point.parameters)
    return distinct, warnings


def parse_user_point(sweep: SweepConfig, pairs: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the configuration in which some searched keys have given values, and the others the spec's.

    Args:
        sweep: Sweep with the space.
        pairs: Values by key.
        source: Name of the user's text, for messages.

    Raises:
        InputError: trials do not search a key, a value is invalid, or a constraint is broken.
    """
    searched = [parameter.key for parameter in sweep.space.parameters]
    values: dict[str, Any] = {}
    for key, value in pairs.items():
        name = canonical_key(str(key))
        if name not in LEAVES and not is_bundle_key(name):
            suggestion = nearest_key(name)
            raise InputError(f"{source}: unknown key {key}" + (f"; did you mean {suggestion}?" if suggestion else "."))
        if name not in searched:
            raise InputError(f"{source}: {key} is not searched by trials, which differ in {', '.join(searched)} only.")
        if name in values:
            raise InputError(f"{source}: {key} is given twice (an alias is a second spelling): keep one of them.")
        values[name] = typed_value(name, value)
    parameters = sweep.space.complete(values)
    _require_bundles(sweep, parameters, values, source)
    for key, value in values.items():
        if key not in parameters:
            raise InputError(f"{source}: {key} is not searched with these values: its `when` does not hold; remove it.")
        if parameters[key] != value:
            raise InputError(f"{source}: {key} = {value!r}: the space sets it to {parameters[key]!r}.")
    _check(sweep, parameters, source)
    return parameters


def _require_bundles(sweep: SweepConfig, parameters: Mapping[str, Any], values: Mapping[str, Any], source: str) -> None:
    """Reject values that no bundle has.

    Args:
        sweep: Sweep with the space.
        parameters: Configuration with the values.
        values: Values by key, from which the configuration was completed.
        source: Name of the values, for messages.

    Raises:
        InputError: no bundle has the name or the values.
    """
    for parameter in sweep.space.parameters:
        key = parameter.key
        if not is_bundle_key(key) or parameters[key] == values.get(key, parameters[key]) and parameters[key]:
            continue
        names = ", ".join(str(name) for branch in parameter.branches for name in branch.range.values() or ())
        if values.get(key) is not None:
            raise InputError(f"{source}: {key} = {values[key]!r} is not the name of a bundle; there are {names}.")
        conditional = [other.key for other in sweep.space.parameters if key in other.condition_keys()]
        differing = [
            other for other in conditional if values.get(other, sweep.space.base[other]) != sweep.space.base[other]
        ]
        if differing:
            text = ", ".join(f"{other} = {values[other]!r}" for other in differing)
            raise InputError(f"{source}: no {key} has {text}; there are {names}.")


def load_earlier_sweep(sweep: SweepConfig, name: str, source: str) -> SweepState:
    """Return the state of another sweep in the same storage.

    Raises:
        InputError: it is the sweep itself, does not exist, or has another metric.
    """
    if name == sweep.file.name:
        raise InputError(f"{source}: {name} is this sweep itself: name an earlier one.")
    try:
        state = load_state(name, str(sweep.folder.parent))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    if state.metric != sweep.file.metric:
        raise InputError(
            f"{source}: {name} has {state.metric} as its objective, this sweep has {sweep.file.metric}: "
            "set objective.metric to the same, or name another sweep."
        )
    return state


def earlier_values(state: SweepState, trial: RunState, pretrained: Mapping[str, str]) -> dict[str, Any]:
    """Return the spec's values of a trial of an earlier sweep, without its bundles, which may have other values now.

    Args:
        state: State of the earlier sweep.
        trial: The trial.
        pretrained: By file of the pretrained weights of this sweep the SHA-256 digest. A file with the digest that the
            earlier sweep recorded replaces the trial's, which may be a copy in the earlier sweep's folder.
    """
    values = spec_values(state.header.spec | trial.parameters)
    file = values.get(WEIGHTS_KEY)
    digest = state.stages.get("preflight", {}).get("pretrained", {}).get(file)
    files = [other for other in pretrained if pretrained[other] == digest]
    return values | {WEIGHTS_KEY: files[0]} if files and file not in files else values


def _best_of(
    sweep: SweepConfig, name: str, source: str, pretrained: Mapping[str, str], warnings: list[str]
) -> list[InitialPoint]:
    state = load_earlier_sweep(sweep, name, source)
    best = state.finished()[:TRIALS_PER_SWEEP]
    if not best:
        raise InputError(f"{source}: {name} has no full-length trial: name another sweep.")
    points = []
    for trial in best:
        values = earlier_values(state, trial, pretrained)
        parameters = sweep.space.complete(values)
        try:
            _require_bundles(sweep, parameters, values, f"trial {name}/{trial.number} is left out")
            _check(sweep, parameters, f"trial {name}/{trial.number} is left out")
            points.append(InitialPoint(parameters, f"{name}/{trial.number}"))
        except InputError as error:
            warnings.append(" ".join(str(error).split()))
    return points


def _check(sweep: SweepConfig, parameters: Mapping[str, Any], source: str) -> None:
    with_parameters(sweep.experiment, parameters, source)
    broken = sweep.space.broken_constraints(parameters)
    if broken:
        raise InputError(f"{source}: the configuration breaks the constraint {broken[0].text}.")
