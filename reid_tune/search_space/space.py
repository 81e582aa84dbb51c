"""A search space: the searched keys with their ranges, and the constraints between keys."""

import json
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InputError
from reid_tune.search_space.conditions import Branch, Parameter
from reid_tune.search_space.constraints import Constraint
from reid_tune.search_space.ranges import Range

if TYPE_CHECKING:
    from reid_tune.search_space.ranges import Distribution, Distributions

    Suggest = Callable[[str, Distribution], Any]

__all__ = ["SearchSpace", "plain_values"]


@dataclass(frozen=True)
class SearchSpace:
    """What may be searched. A configuration is a mapping of the keys searched in it to values; {} is the spec.

    Attributes:
        parameters: All keys in the file's order, but each behind those that its conditions look at.
        constraints: What every configuration must satisfy.
        base: The spec's values by key, as plain data.
        source: The file, for messages.
    """

    parameters: tuple[Parameter, ...]
    constraints: tuple[Constraint, ...]
    base: dict[str, Any]
    source: str

    def draw(self, suggest: "Suggest") -> dict[str, Any]:
        """A configuration from values that `suggest` gives for Optuna's names and distributions, key after key."""
        drawn: dict[str, Any] = {}
        for parameter in self.parameters:
            if branch := parameter.active_branch(ChainMap(drawn, self.base)):
                distributions = branch.range.distributions(branch.name)
                values = {name: suggest(name, distribution) for name, distribution in distributions.items()}
                drawn[parameter.key] = branch.range.decode(branch.name, values)
        return drawn

    def all_configurations(self) -> Iterator[dict[str, Any]]:
        """All configurations of a space without continuous ranges, the last key changing fastest."""
        return _combinations(self.parameters, {}, self.base, lambda found: found.values() or ())

    def spaced_configurations(self, count: int) -> Iterator[dict[str, Any]]:
        """Configurations that stand for all that satisfy the constraints: of each range at most `count` values.

        Raises:
            InputError: a constraint cannot be computed.
        """
        every = _combinations(self.parameters, {}, self.base, lambda found: found.spaced_values(count))
        return (configuration for configuration in every if not self.broken_constraints(configuration))

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with given values where their keys are searched; for missing ones it has the spec's."""
        found: dict[str, Any] = {}
        for parameter in self.parameters:
            if branch := parameter.active_branch(ChainMap(found, self.base)):
                only = not branch.range.distributions(branch.name)
                own = given.get(parameter.key, self.base[parameter.key])
                found[parameter.key] = branch.range.decode(branch.name, {}) if only else own
        return found

    def active_branches(self, configuration: Mapping[str, Any]) -> dict[str, Branch]:
        """By key the ranges that are searched in a configuration."""
        values = self.base | dict(configuration)
        branches = {parameter.key: parameter.active_branch(values) for parameter in self.parameters}
        return {key: branch for key, branch in branches.items() if branch}

    def conditional_groups(self) -> "dict[str, Distributions]":
        """By each of Optuna's names those with the same conditions, itself among them, as they have values together."""
        groups: list[tuple[Mapping[str, Any], Distributions]] = []
        found: dict[str, Distributions] = {}
        for branch in (branch for parameter in self.parameters for branch in parameter.branches):
            distributions = branch.range.distributions(branch.name)
            group = next((group for when, group in groups if when == branch.when), None)
            if group is None:
                groups.append((branch.when, group := {}))
            group |= distributions
            found |= dict.fromkeys(distributions, group)
        return found

    def encode(self, configuration: Mapping[str, Any]) -> "tuple[dict[str, Any], Distributions] | None":
        """A configuration as Optuna's values and distributions; None where a value lies outside its range."""
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

    def broken_constraints(self, configuration: Mapping[str, Any]) -> list[Constraint]:
        """The constraints that a configuration does not satisfy.

        Raises:
            InputError: one cannot be computed.
        """
        values = self.base | dict(configuration)
        try:
            return [constraint for constraint in self.constraints if not constraint.is_satisfied(values)]
        except ValueError as error:
            raise InputError(f"{self.source}: {error}") from None

    def as_entries(self) -> dict[str, Any]:
        """The section `space` of a file with this space."""
        entries = {parameter.key: [branch.as_entry() for branch in parameter.branches] for parameter in self.parameters}
        return {key: found[0] if len(found) == 1 else found for key, found in entries.items()}


def _combinations(
    parameters: Sequence[Parameter],
    drawn: dict[str, Any],
    base: dict[str, Any],
    values: Callable[[Range], Iterable[Any]],
) -> Iterator[dict[str, Any]]:
    if not parameters:
        yield drawn
        return
    key, branch = parameters[0].key, parameters[0].active_branch(ChainMap(drawn, base))
    for configuration in ({**drawn, key: value} for value in values(branch.range)) if branch else [drawn]:
        yield from _combinations(parameters[1:], configuration, base, values)


def plain_values(experiment: Experiment) -> dict[str, Any]:
    """A spec's values by dotted key, with lists where it has tuples."""
    values: dict[str, Any] = json.loads(json.dumps(experiment.parameters()))
    return values
