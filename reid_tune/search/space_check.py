"""Validation of a search space before anything runs."""

from collections import Counter
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.config.unused_fields import unused_fields
from reid_tune.errors import InputError
from reid_tune.search.sampler import suggestion_seed
from reid_tune.search.study import Study
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.space import grid_configurations

__all__ = ["SAMPLE_COUNT", "validate_space"]

SAMPLE_COUNT = 1000
# One in this many random configurations must satisfy the constraints.
_ONE_ALLOWED_IN = 100

_Samples = list[tuple[dict[str, Any], Experiment]]


def validate_space(sweep: SweepConfig, count: int) -> list[Experiment]:
    """Check a search space, and return experiments of it.

    Args:
        sweep: Sweep with the space.
        count: Number of random configurations.

    Returns:
        All experiments of a grid; otherwise those of the random configurations that satisfy the constraints.

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
    allowed, broken = [], Counter[str]()
    for parameters in draws:
        constraints = sweep.space.broken_constraints(parameters)
        broken.update(constraint.text for constraint in constraints)
        if not constraints:
            allowed.append(parameters)
    if len(allowed) < max(1, len(draws) // _ONE_ALLOWED_IN):
        text, count = broken.most_common(1)[0]
        raise InputError(
            f"{sweep.source}: constraints: only {len(allowed):,} of {len(draws):,} random configurations satisfy all, "
            f"{count:,} break {text}: loosen it or narrow the ranges."
        )
    return allowed


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
