"""The sampler `grid`: all configurations of a space in a fixed order."""

import itertools
from typing import Any

from reid_tune.errors import InputError
from reid_tune.search_space.space import SearchSpace

__all__ = ["grid_configurations"]

_MOST = 10_000


def grid_configurations(space: SearchSpace) -> list[dict[str, Any]]:
    """All configurations that satisfy the constraints, without the spec's own, which is trial 0.

    Raises:
        InputError: a continuous range, more than 10,000 combinations, or none that satisfies the constraints.
    """
    for parameter in space.parameters:
        for branch in parameter.branches:
            if branch.range.values() is None:
                raise InputError(
                    f"{space.source}: space.{parameter.key} = {branch.as_entry()}: a grid has no continuous ranges; "
                    "write choice, int or quniform, or another search.sampler."
                )
    configurations = list(itertools.islice(space.all_configurations(), _MOST + 1))
    if len(configurations) > _MOST:
        raise InputError(
            f"{space.source}: the grid has more than {_MOST:,} combinations: narrow it, or take another sampler."
        )
    spec = {key: space.base[key] for key in space.active_branches({})}
    allowed = [found for found in configurations if found != spec and not space.broken_constraints(found)]
    if not allowed:
        raise InputError(f"{space.source}: no combination of the grid but the spec's own satisfies the constraints.")
    return allowed
