"""Validation of a search space before anything runs."""

import itertools
from collections import Counter
from typing import Any, NamedTuple

from reid_tune.config.experiment import Experiment
from reid_tune.config.keys import is_bundle_key
from reid_tune.config.load import with_parameters
from reid_tune.config.unused_fields import unused_fields
from reid_tune.errors import InputError
from reid_tune.search.sampler import suggestion_seed
from reid_tune.search.study import Study
from reid_tune.search_space.constraints import Constraint
from reid_tune.search_space.costs import MAX_NETWORKS, network_text
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.space import grid_configurations

__all__ = ["SAMPLE_COUNT", "CheckedSpace", "validate_space"]

SAMPLE_COUNT = 1000
# One in this many random configurations must satisfy the constraints.
_ONE_ALLOWED_IN = 100

_Samples = list[tuple[dict[str, Any], Experiment]]


class CheckedSpace(NamedTuple):
    """A search space that has passed its check.

    Attributes:
        experiments: All experiments of a grid; otherwise those of the random configurations that satisfy the
            constraints. Limits on costs leave out only configurations whose network was built.
        warnings: A sentence if there were too many networks to build all.
    """

    experiments: list[Experiment]
    warnings: list[str]


def validate_space(sweep: SweepConfig, count: int) -> CheckedSpace:
    """Check a search space, and return experiments of it.

    Args:
        sweep: Sweep with the space.
        count: Number of random configurations.

    Raises:
        InputError: the constraints cannot be computed or exclude (nearly) everything, a configuration is not a valid
            spec, or a key has no effect wherever it is searched.
    """
    if sweep.file.search.sampler == "grid":
        draws = grid_configurations(sweep.space)
    else:
        draws = Study(sweep).random_draws(suggestion_seed(sweep.file.search.seed, -1), count)
    allowed, warnings = _satisfying(sweep, draws)
    samples = {str(parameters): (parameters, _experiment(sweep, parameters)) for parameters in allowed}
    _require_effect(sweep, list(samples.values()))
    return CheckedSpace([experiment for _, experiment in samples.values()], warnings)


def _satisfying(sweep: SweepConfig, draws: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the configurations that satisfy the constraints, and warnings.

    Costs count until there are `MAX_NETWORKS` networks.
    """
    space = sweep.space
    networks: set[str] = set()
    broken: list[list[Constraint]] = []
    tested = 0
    for parameters in draws:
        broken.append(space.broken_constraints(parameters, with_costs=False))
        if not broken[-1] and space.has_cost_constraints:
            networks.add(network_text(space.base | parameters))
            if len(networks) <= MAX_NETWORKS:
                broken[-1] = space.broken_constraints(parameters)
        tested += len(networks) <= MAX_NETWORKS
    _require_allowed(sweep, broken if sweep.file.search.sampler == "grid" else broken[:tested])
    _require_bundles(sweep, draws, broken)
    allowed = [parameters for parameters, constraints in zip(draws, broken, strict=True) if not constraints]
    if len(networks) <= MAX_NETWORKS:
        return allowed, []
    limits = ", ".join(constraint.text for constraint in space.constraints if constraint.names_costs)
    return allowed, [
        f"{limits}: tested for {MAX_NETWORKS} of {len(networks):,} networks only, as each takes 0.1 to 0.3 s; the "
        "network of every suggestion is tested before it starts."
    ]


def _require_allowed(sweep: SweepConfig, broken: list[list[Constraint]]) -> None:
    is_grid = sweep.file.search.sampler == "grid"
    kind = "combinations of the grid" if is_grid else "random configurations"
    allowed = sum(not constraints for constraints in broken)
    if allowed < (1 if is_grid else max(1, len(broken) // _ONE_ALLOWED_IN)):
        text, count = Counter(constraint.text for constraint in itertools.chain.from_iterable(broken)).most_common(1)[0]
        raise InputError(
            f"{sweep.source}: constraints: only {allowed:,} of {len(broken):,} {kind} satisfy all, "
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
