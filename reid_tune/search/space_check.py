"""Validation of a search space before anything runs."""

import itertools
from collections import Counter
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.config.keys import is_bundle_key
from reid_tune.config.load import with_parameters
from reid_tune.config.unused_fields import unused_fields
from reid_tune.errors import InputError
from reid_tune.search.sampler import suggestion_seed
from reid_tune.search.study import Study
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
    draws = _with_few_networks(sweep, draws)
    broken = [[constraint.text for constraint in sweep.space.broken_constraints(parameters)] for parameters in draws]
    allowed = [parameters for parameters, texts in zip(draws, broken, strict=True) if not texts]
    if len(allowed) < max(1, len(draws) // _ONE_ALLOWED_IN):
        text, count = Counter(itertools.chain.from_iterable(broken)).most_common(1)[0]
        raise InputError(
            f"{sweep.source}: constraints: only {len(allowed):,} of {len(draws):,} random configurations satisfy all, "
            f"{count:,} break {text}: loosen it or narrow the ranges."
        )
    for key in (parameter.key for parameter in sweep.space.parameters if is_bundle_key(parameter.key)):
        allowed_names = {parameters[key] for parameters in allowed}
        counts = Counter(
            (parameters[key], text)
            for parameters, texts in zip(draws, broken, strict=True)
            for text in texts
            if parameters[key] not in allowed_names
        )
        if counts:
            name, text = counts.most_common(1)[0][0]
            raise InputError(
                f"{sweep.source}: constraints: no configuration of {key} {name} satisfies all, most break {text}: "
                "loosen it or remove the bundle."
            )
    return allowed


def _with_few_networks(sweep: SweepConfig, draws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the configurations of at most `_MAX_NETWORKS` networks if a constraint needs costs, otherwise all."""
    if not any(constraint.names_costs for constraint in sweep.space.constraints):
        return draws
    networks: dict[str, None] = {}
    texts = [network_text(sweep.space.base | parameters) for parameters in draws]
    for text in texts:
        if len(networks) < _MAX_NETWORKS:
            networks[text] = None
    return [parameters for parameters, text in zip(draws, texts, strict=True) if text in networks]


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
