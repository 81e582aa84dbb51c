"""The searched parameters of a sweep, with the values that its trials have."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reid_tune.config.experiment import canonical_key
from reid_tune.config.keys import is_bundle_key
from reid_tune.journal.state import RunState, SweepState
from reid_tune.search_space.parse import parse_spaces, typed_value
from reid_tune.search_space.ranges import LOGARITHMIC_KINDS

__all__ = ["SearchedParameter", "labels_of_keys", "searched_parameters", "space_parameters"]


@dataclass(frozen=True)
class SearchedParameter:
    """One searched key.

    Attributes:
        key: Dotted key of the spec.
        range: Entry of the search-space file, None if it has none.
        spec_value: Value in the spec, which is that of trial 0; of a bundle its name, None if the spec is not in one.
        spec: Values of the spec by key, for its conditions.
    """

    key: str
    range: Any
    spec_value: Any
    spec: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """The last part of the key, or its last two parts if the last one is `name`."""
        parts = self.key.split(".")
        return ".".join(parts[-2:]) if parts[-1] == "name" else parts[-1]

    @property
    def is_logarithmic(self) -> bool:
        """Whether one of its ranges is logarithmic."""
        return not LOGARITHMIC_KINDS.isdisjoint(_kinds(self.range))

    def values_by_trial(self, trials: list[RunState]) -> dict[int, Any]:
        """Return its values by trial number, without the trials in which its condition does not hold.

        Trial 0, and trials that began before the space had the key, have the spec's value.
        """
        in_spec = self.spec_value is not None or not is_bundle_key(self.key)
        return {
            trial.number: trial.parameters.get(self.key, self.spec_value)
            for trial in trials
            if self.key in trial.parameters or (in_spec and (trial.number == 0 or self._applies(trial)))
        }

    def _applies(self, trial: RunState) -> bool:
        """Whether the conditions of one of its ranges hold in a trial."""
        values = {**self.spec, **trial.parameters}

        def holds(key: str, options: Any) -> bool:
            options = options if isinstance(options, list) else [options]
            return values.get(key) in [typed_value(key, option) for option in options]

        conditions = [branch.get("when", {}) for branch in _branches(self.range)]
        return any(all(holds(canonical_key(key), options) for key, options in when.items()) for when in conditions)

    def is_numeric(self, trials: list[RunState]) -> bool:
        """Whether it is a range of numbers, not a list of choices. The spec's value may be null."""
        values = self.values_by_trial(trials).values()
        return "choice" not in _kinds(self.range) and all(isinstance(value, int | float | None) for value in values)

    def value_names(self, trials: list[RunState]) -> list[str]:
        """Return its distinct values as JSON; numbers are sorted by size."""
        values = {json.dumps(value): value for value in self.values_by_trial(trials).values()}
        return sorted(values, key=lambda name: (values[name] if isinstance(values[name], int | float) else 0, name))


def _kinds(entry: Any) -> set[str]:
    """Return the kinds of all ranges in an entry of the search-space file, none if it is None."""
    kinds: set[str] = set()
    for branch in _branches(entry):
        for kind, values in branch.items():
            if kind == "list":
                kinds |= {inner for element in values for inner in _kinds(element)}
            elif kind != "when":
                kinds.add(kind)
    return kinds


def searched_parameters(state: SweepState) -> list[SearchedParameter]:
    """Return the parameters that trials search, in the file's order, without those that a trial's bundle fixes."""
    return [parameter for parameter in space_parameters(state) if not _is_fixed_by_bundle(parameter.range)]


def labels_of_keys(state: SweepState) -> dict[str, str]:
    """Return the label of each searched key."""
    return {parameter.key: parameter.label for parameter in searched_parameters(state)}


def space_parameters(state: SweepState) -> list[SearchedParameter]:
    """Return the parameters of the space that trials search, in the file's order."""
    header = state.header
    ranges = {canonical_key(key): entry for key, entry in header.sweep.get("space", {}).items()}
    ranges = {key: entry for key, entry in ranges.items() if not key.startswith("re_ranking.")}
    keys = dict.fromkeys([*ranges, *(key for trial in state.trials for key in trial.parameters)])
    spec: Mapping[str, Any] = header.spec
    if any(map(is_bundle_key, keys)):
        spec = parse_spaces(ranges, (), header.spec, header.name)[0].base
    return [SearchedParameter(key, ranges.get(key), spec.get(key), spec) for key in keys]


def _is_fixed_by_bundle(entry: Any) -> bool:
    """Whether an entry of the search-space file has one value in each bundle that has the key."""
    return all("value" in branch and any(map(is_bundle_key, branch.get("when", {}))) for branch in _branches(entry))


def _branches(entry: Any) -> list[dict[str, Any]]:
    """Return the ranges in an entry of the search-space file."""
    return entry if isinstance(entry, list) else [entry or {}]
