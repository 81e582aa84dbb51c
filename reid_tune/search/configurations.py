"""Equality of configurations: those that differ only in keys without effect train the same model."""

import json
from collections.abc import Mapping
from typing import Any

from reid_tune.config.keys import is_bundle_key
from reid_tune.config.load import with_parameters
from reid_tune.config.unused_fields import keys_with_conditions, unused_fields
from reid_tune.search_space.load import SweepConfig

__all__ = ["KnownConfigurations", "configuration_key", "value_text"]


def configuration_key(sweep: SweepConfig, configuration: Mapping[str, Any]) -> str:
    """Return text that two configurations share if they train the same model.

    It has the values of all searched keys that have an effect, the spec's where the configuration has none.

    Args:
        sweep: Sweep with the space and the spec.
        configuration: Values of searched keys.

    Raises:
        InputError: the configuration is not a valid spec.
    """
    values = sweep.space.base | dict(configuration)
    keys = {parameter.key for parameter in sweep.space.parameters if not is_bundle_key(parameter.key)}
    if not keys.isdisjoint(keys_with_conditions()):
        experiment = with_parameters(sweep.experiment, configuration, str(sweep.source))
        keys -= {field.key for field in unused_fields(experiment)}
    return value_text({key: values[key] for key in sorted(keys)})


def value_text(value: Any) -> str:
    """Return a value as text, equal for equal numbers: a choice may have 1 where the spec has 1.0."""
    return json.dumps(_with_floats(value))


def _with_floats(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_floats(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_floats(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class KnownConfigurations:
    """The configurations that trials have, with that of trial 0, the spec itself.

    Args:
        sweep: Sweep with the space and the spec.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        self._sweep = sweep
        self._known = {configuration_key(sweep, {})}
        # Keys by configuration: small spaces draw the same ones again and again.
        self._keys: dict[str, str] = {}

    def add(self, configuration: Mapping[str, Any]) -> None:
        """Add the configuration of a trial."""
        self._known.add(self._key(configuration))

    def __contains__(self, configuration: Mapping[str, Any]) -> bool:
        return self._key(configuration) in self._known

    def _key(self, configuration: Mapping[str, Any]) -> str:
        text = json.dumps(dict(configuration), sort_keys=True)
        if text not in self._keys:
            self._keys[text] = configuration_key(self._sweep, configuration)
        return self._keys[text]
