"""A search space: the searched keys with their ranges, and the constraints between keys."""

import itertools
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reid_tune.config.experiment import Experiment, flatten
from reid_tune.config.keys import is_bundle_key
from reid_tune.errors import InputError
from reid_tune.search_space.bundles import matching_bundle
from reid_tune.search_space.conditions import Branch, Parameter
from reid_tune.search_space.constraints import Constraint
from reid_tune.search_space.costs import ValuesWithCosts
from reid_tune.search_space.ranges import Range

if TYPE_CHECKING:
    from reid_tune.search_space.ranges import Distribution, Distributions

    Suggest = Callable[[str, Distribution], Any]

__all__ = ["SearchSpace", "grid_configurations", "plain_values"]

_MAX_GRID = 10_000


@dataclass(frozen=True)
class SearchSpace:
    """The searched keys and the constraints.

    A configuration is a mapping of the keys that are searched in it to their values; {} is the spec itself.

    Attributes:
        parameters: Searched keys in the file's order, but each after those that its conditions name.
        constraints: Expressions that every configuration must satisfy.
        base: The spec's values by key, as plain data, and the name of its bundle, None if it is not in one.
        source: Path of the file, for messages.
    """

    parameters: tuple[Parameter, ...]
    constraints: tuple[Constraint, ...]
    base: dict[str, Any]
    source: str

    def draw(self, suggest: "Suggest") -> dict[str, Any]:
        """Return a configuration, drawn key after key.

        Args:
            suggest: Function that draws a value for an Optuna name and distribution.
        """
        drawn: dict[str, Any] = {}
        for parameter in self.parameters:
            branch = parameter.active_branch(ChainMap(drawn, self.base))
            if branch:
                distributions = branch.range.distributions(branch.name)
                values = {name: suggest(name, distribution) for name, distribution in distributions.items()}
                drawn[parameter.key] = branch.range.decode(branch.name, values)
        return drawn

    @property
    def is_finite(self) -> bool:
        """Whether no range is continuous."""
        branches = (branch for parameter in self.parameters for branch in parameter.branches)
        return all(branch.range.values() is not None for branch in branches)

    def all_configurations(self) -> Iterator[dict[str, Any]]:
        """Yield all configurations of a space without continuous ranges, the last key changing fastest."""
        return _combinations(self.parameters, {}, self.base, lambda values: values.values() or ())

    def spaced_configurations(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield the configurations of evenly spaced values that satisfy the constraints.

        Args:
            count: Maximum number of values of each range; 2 or more.

        Raises:
            InputError: a constraint cannot be computed.
        """
        combinations = _combinations(self.parameters, {}, self.base, lambda values: values.spaced_values(count))
        return (configuration for configuration in combinations if not self.broken_constraints(configuration))

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration with the given values of searched keys and the spec's for the others.

        A bundle that is not given is the one that has the values, None if no bundle has them.
        """
        configuration: dict[str, Any] = {}
        for parameter in self.parameters:
            branch = parameter.active_branch(ChainMap(configuration, self.base))
            if branch is None:
                continue
            if is_bundle_key(parameter.key):
                configuration[parameter.key] = matching_bundle(parameter.key, self.parameters, values, self.base)
            elif branch.range.distributions(branch.name):
                configuration[parameter.key] = values.get(parameter.key, self.base[parameter.key])
            else:  # The range has one value only.
                configuration[parameter.key] = branch.range.decode(branch.name, {})
        return configuration

    def active_branches(self, configuration: Mapping[str, Any]) -> dict[str, Branch]:
        """Return by key the ranges that are searched in a configuration."""
        values = self.base | dict(configuration)
        branches = {parameter.key: parameter.active_branch(values) for parameter in self.parameters}
        return {key: branch for key, branch in branches.items() if branch}

    def conditional_groups(self) -> "dict[str, Distributions]":
        """Return for each of Optuna's names the distributions with the same conditions, including its own.

        The names of a group have values in the same trials.
        """
        groups: list[tuple[Mapping[str, Any], Distributions]] = []
        group_of_name: dict[str, Distributions] = {}
        for branch in (branch for parameter in self.parameters for branch in parameter.branches):
            distributions = branch.range.distributions(branch.name)
            group = next((group for when, group in groups if when == branch.when), None)
            if group is None:
                group = {}
                groups.append((branch.when, group))
            group |= distributions
            group_of_name |= dict.fromkeys(distributions, group)
        return group_of_name

    def encode(self, configuration: Mapping[str, Any]) -> "tuple[dict[str, Any], Distributions] | None":
        """Return a configuration as Optuna's values and distributions, None if a value is outside of its range."""
        values = self.base | dict(configuration)
        params: dict[str, Any] = {}
        distributions: Distributions = {}
        for key, branch in self.active_branches(configuration).items():
            encoded = branch.range.encode(branch.name, values[key])
            if encoded is None:
                return None
            params |= encoded
            distributions |= branch.range.distributions(branch.name)
        return params, distributions

    @property
    def has_cost_constraints(self) -> bool:
        """Whether a constraint names costs of the network."""
        return any(constraint.names_costs for constraint in self.constraints)

    def broken_constraints(self, configuration: Mapping[str, Any], *, with_costs: bool = True) -> list[Constraint]:
        """Return the constraints that a configuration does not satisfy.

        Args:
            configuration: Values of searched keys.
            with_costs: Whether constraints on costs of the network count: each network takes 0.1 to 0.3 s.

        Raises:
            InputError: a constraint cannot be computed.
        """
        values = ValuesWithCosts(self.base | dict(configuration))
        constraints = [constraint for constraint in self.constraints if with_costs or not constraint.names_costs]
        try:
            return [constraint for constraint in constraints if not constraint.is_satisfied(values)]
        except ValueError as error:
            raise InputError(f"{self.source}: {error}") from None

    def allows(self, configuration: Mapping[str, Any], *, with_costs: bool = True) -> bool:
        """Whether a configuration satisfies the constraints; not if one of them cannot be computed.

        Args:
            configuration: Values of searched keys.
            with_costs: As in `broken_constraints`.
        """
        values = ValuesWithCosts(self.base | dict(configuration))
        # Costs are needed only where all other constraints hold.
        ordered = sorted(self.constraints, key=lambda constraint: constraint.names_costs)
        if not with_costs:
            ordered = [constraint for constraint in ordered if not constraint.names_costs]
        try:
            return all(constraint.is_satisfied(values) for constraint in ordered)
        except ValueError:
            return False

    def as_entries(self) -> dict[str, Any]:
        """Return the section `space` of a file with this space."""
        entries = {parameter.key: [branch.as_entry() for branch in parameter.branches] for parameter in self.parameters}
        return {key: branches[0] if len(branches) == 1 else branches for key, branches in entries.items()}


def grid_configurations(space: SearchSpace) -> list[dict[str, Any]]:
    """Return all configurations that satisfy the constraints, without the spec's own, which is trial 0.

    Constraints on costs are left to `Study`, which applies them to one configuration after the other.

    Raises:
        InputError: a range is continuous, there are more than 10,000 combinations, or none satisfies the constraints.
    """
    for parameter in space.parameters:
        for branch in parameter.branches:
            if branch.range.values() is None:
                raise InputError(
                    f"{space.source}: space.{parameter.key} = {branch.as_entry()}: a grid has no continuous ranges; "
                    "use choice, int or quniform, or another search.sampler."
                )
    configurations = list(itertools.islice(space.all_configurations(), _MAX_GRID + 1))
    if len(configurations) > _MAX_GRID:
        raise InputError(
            f"{space.source}: the grid has more than {_MAX_GRID:,} combinations: narrow it, or use another sampler."
        )
    spec = {key: space.base[key] for key in space.active_branches({})}
    allowed = [
        configuration
        for configuration in configurations
        if configuration != spec and not space.broken_constraints(configuration, with_costs=False)
    ]
    if not allowed:
        raise InputError(
            f"{space.source}: no combination of the grid other than the spec's own satisfies the constraints: "
            "loosen them or widen the ranges."
        )
    return allowed


def _combinations(
    parameters: Sequence[Parameter],
    drawn: dict[str, Any],
    base: dict[str, Any],
    values_of: Callable[[Range], Iterable[Any]],
) -> Iterator[dict[str, Any]]:
    """Yield all configurations that begin with `drawn`, with the values that `values_of` gives for each range."""
    if not parameters:
        yield drawn
        return
    key, branch = parameters[0].key, parameters[0].active_branch(ChainMap(drawn, base))
    prefixes = ({**drawn, key: value} for value in values_of(branch.range)) if branch else [drawn]
    for prefix in prefixes:
        yield from _combinations(parameters[1:], prefix, base, values_of)


def plain_values(experiment: Experiment) -> dict[str, Any]:
    """Return a spec's values by dotted key as plain data: lists instead of tuples."""
    return flatten(experiment.model_dump(mode="json", exclude={"encryption_key"}))
