"""What can be known about a search space before anything runs."""

from collections import Counter
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.config.unused_fields import unused_fields
from reid_tune.errors import InputError
from reid_tune.search.study import Study, suggestion_seed
from reid_tune.search_space.space import grid_configurations
from reid_tune.search_space.load import SweepConfig

__all__ = ["SAMPLE_COUNT", "validate_space"]

SAMPLE_COUNT = 1000
# One in this many random configurations must satisfy the constraints.
_RARE = 100

Samples = list[tuple[dict[str, Any], Experiment]]


def validate_space(sweep: SweepConfig, count: int) -> list[Experiment]:
    """Experiments of a space: of a grid all, else those among `count` random draws that satisfy the constraints.

    Raises:
        InputError: the constraints cannot be computed or leave (nearly) nothing, an experiment is no valid spec, or a
            key has no effect where it is searched.
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
        found = sweep.space.broken_constraints(parameters)
        broken.update(constraint.text for constraint in found)
        if not found:
            allowed.append(parameters)
    if len(allowed) < max(1, len(draws) // _RARE):
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
        raise InputError(f"the space allows {parameters}, which is no valid spec. {error}") from None


def _require_effect(sweep: SweepConfig, samples: Samples) -> None:
    """Refuse a range that has no effect in any of the samples that search it, or that none searches."""
    searched: set[tuple[str, str]] = set()
    useful: set[tuple[str, str]] = set()
    reasons: dict[str, str] = {}
    for parameters, experiment in samples:
        idle = {field.key: field.reason for field in unused_fields(experiment)}
        active = {(key, branch.name) for key, branch in sweep.space.active_branches(parameters).items()}
        searched |= active
        useful |= {(key, name) for key, name in active if key not in idle}
        reasons |= {key: idle[key] for key, _ in active if key in idle}
    for parameter in sweep.space.parameters:
        for branch in parameter.branches:
            which = f"space.{parameter.key}" + (f", {branch.as_entry()}," if branch.when else "")
            if (parameter.key, branch.name) not in searched:
                raise InputError(f"{sweep.source}: {which} is searched in none of {len(samples):,} configurations.")
            if (parameter.key, branch.name) not in useful:
                raise InputError(f"{sweep.source}: {which} has no effect, because {reasons[parameter.key]}: remove it.")
