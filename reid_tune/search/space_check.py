"""Validation of a search space before anything runs."""

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.config.keys import is_bundle_key
from reid_tune.config.load import with_parameters
from reid_tune.config.unused_fields import unused_fields
from reid_tune.errors import InputError
from reid_tune.search.sampler import suggestion_seed
from reid_tune.search.study import Study
from reid_tune.search_space.constraints import Constraint
from reid_tune.search_space.costs import network_text
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.space import grid_configurations

__all__ = ["SAMPLE_COUNT", "validate_space"]

SAMPLE_COUNT = 1000
# Networks whose costs are computed for constraints; each takes 0.1 to 0.3 s.
_MAX_NETWORKS = 100
# One in this many random configurations must satisfy the constraints.
_ONE_ALLOWED_IN = 100

_Samples = list[tuple[dict[str, Any], Experiment]]


def validate_space(sweep: SweepConfig, count: int) -> list[Experiment]:
    """Check a search space, and return experiments of it.

    Args:
        sweep: Sweep with the space.
        count: Number of random configurations.

    Returns:
        All experiments of a grid; otherwise those of the random configurations that satisfy the constraints. Limits on
        costs leave out only configurations whose network is one of the first 100.

    Raises:
        InputError: the constraints cannot be computed or exclude (nearly) everything, a configuration is not a valid
            spec, or a key has no effect wherever it is searched.
    """
    if sweep.file.search.sampler == "grid":
        allowed = grid_configurations(sweep.space)
    else:
        seed = suggestion_seed(sweep.file.search.seed, -1)
        allowed = _satisfying(sweep, Study(sweep).random_draws(seed, count))
    samples = {str(parameters): (parameters, _experiment(sweep, parameters)) for parameters in allowed}
    _require_effect(sweep, list(samples.values()))
    return [experiment for _, experiment in samples.values()]


def _satisfying(sweep: SweepConfig, draws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the configurations that satisfy the constraints; costs count until there are `_MAX_NETWORKS` networks."""
    space = sweep.space
    without_costs = replace(space, constraints=tuple(item for item in space.constraints if not item.names_costs))
    networks: set[str] = set()
    broken: list[list[Constraint]] = []
    tested = 0
    for parameters in draws:
        broken.append(without_costs.broken_constraints(parameters))
        if not broken[-1] and space.constraints != without_costs.constraints:
            networks.add(network_text(space.base | parameters))
            if len(networks) <= _MAX_NETWORKS:
                broken[-1] = space.broken_constraints(parameters)
        tested += len(networks) <= _MAX_NETWORKS
    _require_allowed(sweep, broken[:tested])
    _require_bundles(sweep, draws, broken)
    return [parameters for parameters, constraints in zip(draws, broken, strict=True) if not constraints]


def _require_allowed(sweep: SweepConfig, broken: list[list[Constraint]]) -> None:
    allowed = sum(not constraints for constraints in broken)
    if allowed < max(1, len(broken) // _ONE_ALLOWED_IN):
        text, count = Counter(constraint.text for constraint in itertools.chain.from_iterable(broken)).most_common(1)[0]
        raise InputError(
            f"{sweep.source}: constraints: only {allowed:,} of {len(broken):,} random configurations satisfy all, "
            f"{count:,} break {text}: loosen it or narrow the ranges."
        )


def _require_bundles(sweep: SweepConfig, draws: list[dict[str, Any]], broken: list[list[Constraint]]) -> None:
    """Reject a bundle of which no configuration satisfies the constraints."""
    pairs = list(zip(draws, broken, strict=True))
    for key in (parameter.key for parameter in sweep.space.parameters if is_bundle_key(parameter.key)):
        allowed_names = {parameters[key] for parameters, constraints in pairs if not constraints}
        counts = Counter(
            (parameters[key], constraint.text)
            for parameters, constraints in pairs
            for constraint in constraints
            if parameters[key] not in allowed_names
        )
        if counts:
            name, text = counts.most_common(1)[0][0]
            raise InputError(
                f"{sweep.source}: constraints: no configuration of {key} {name} satisfies all, most break {text}: "
                "loosen it or remove the bundle."
            )


def _experiment(sweep: SweepConfig, parameters: dict[str, Any]) -> Experiment:
    try:
        return with_parameters(sweep.experiment, parameters, str(sweep.source))
    except InputError as error:
        raise InputError(f"the space allows {parameters}, which is not a valid spec. {error}") from None


def _require_effect(sweep: SweepConfig, samples: _Samples) -> None:
    """Reject a range that no sample searches, or that has no effect in any of the samples that search it."""
    searched: set[tuple[str, str]] = set()
    useful: set[tuple[str, str]] = set()
    reasons: dict[str, str] = {}
    for parameters, experiment in samples:
        unused = {field.key: field.reason for field in unused_fields(experiment)}
        active = {(key, branch.name) for key, branch in sweep.space.active_branches(parameters).items()}
        searched |= active
        useful |= {(key, name) for key, name in active if key not in unused}
        reasons |= {key: unused[key] for key, _ in active if key in unused}
    for parameter in sweep.space.parameters:
        for branch in parameter.branches:
            name = f"space.{parameter.key}" + (f", {branch.as_entry()}," if branch.when else "")
            if (parameter.key, branch.name) not in searched:
                raise InputError(f"{sweep.source}: {name} is searched in none of {len(samples):,} configurations.")
            if (parameter.key, branch.name) not in useful:
                raise InputError(f"{sweep.source}: {name} has no effect, because {reasons[parameter.key]}: remove it.")
