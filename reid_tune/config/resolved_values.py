"""An experiment from the values of a user: references resolved, defaults added, faulty values left out."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reid_tune.config.defaults import backbone_defaults
from reid_tune.config.experiment import Experiment, canonical_key, unflatten
from reid_tune.config.interpolation import Interpolation, ReferenceFault, is_missing
from reid_tune.config.keys import leaf_of, text_keys
from reid_tune.config.pydantic_messages import Fault, find_faults
from reid_tune.config.tao_keys import has_wrong_values
from reid_tune.config.user_values import EMPTY_IS_A_VALUE, UserValues

__all__ = ["ResolvedValues", "find_path_problem", "resolve_values"]

_MAX_INTEGER = 2**62
_MAX_PATH, _MAX_NAME = 4096, 255  # bytes of a path and of a name in it
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_TEXTS = text_keys()
# Keys whose values are names or paths.
_PATHS = _TEXTS - {"encryption_key"} | {"dataset.train_dataset_dir", "dataset.extra_tests"}


@dataclass(frozen=True)
class ResolvedValues:
    """An experiment, in which a faulty value is replaced by the default.

    Attributes:
        experiment: All values.
        faults: Errors in single values.
        tao: Values of the reference's keys that are not in the schema.
        raw_values: By key, values with references as the user wrote them.
        origin: Function that returns the key that is not given, for a key whose value is a reference to it.
    """

    experiment: Experiment
    faults: list[Fault]
    tao: Mapping[str, Any]
    raw_values: Mapping[str, Any]
    origin: Callable[[str], str]

    def as_written(self, message: str) -> str:
        """Return a message with the values of references as the user wrote them, which shows no environment."""
        for key, text in self.raw_values.items():
            message = message.replace(f"{key} = {self.experiment.value(key)!r}", f"{key} = {text!r}")
        return message


def resolve_values(user: UserValues, line_of: Callable[[str], int | None]) -> ResolvedValues:
    """Return the experiment of a user's values, and the faults in them.

    Args:
        user: Values of the user.
        line_of: Function that returns the line of a key in the file, None for a key that is not there.
    """

    def describe(key: str) -> str:
        line = line_of(key)
        return f"{key} (line {line})" if line else key

    user_values = {key: value for key, value in user.values.items() if value is not None}
    defaults = backbone_defaults("resnet_50")
    interpolation = Interpolation({**defaults, **user.tao, **user_values}, canonical_key, describe)
    values, faults = _resolve(user_values, interpolation)
    backbone = values.get("model.backbone")
    if isinstance(backbone, str) and backbone.startswith("swin"):  # the defaults to which values refer are others
        defaults = backbone_defaults(backbone)
        interpolation = Interpolation({**defaults, **user.tao, **user_values}, canonical_key, describe)
        values, faults = _resolve(user_values, interpolation)
    raw_values = {key: value for key, value in user_values.items() if "${" in str(value)}
    experiment, value_faults = find_faults(Experiment, unflatten(defaults | values), raw_values=raw_values)
    if experiment is None:
        value_faults = [Fault(leaf_of(fault.key), fault.message) for fault in value_faults]
        prefixes = tuple(f"{fault.key}." for fault in value_faults)
        values = {key: value for key, value in values.items() if not f"{key}.".startswith(prefixes)}
        experiment = Experiment.model_validate(unflatten(defaults | values))
    large_numbers = [key for key in user_values if _is_large(experiment.value(key))]
    value_faults += [Fault(key, f"{key}: the number is too large.") for key in large_numbers]
    tao, tao_faults = _resolve(user.tao, interpolation)
    faults += [fault for fault in tao_faults if has_wrong_values(fault.key, experiment.model.backbone)]
    return ResolvedValues(experiment, faults + value_faults, tao, raw_values, interpolation.origin)


def _resolve(user_values: Mapping[str, Any], interpolation: Interpolation) -> tuple[dict[str, Any], list[Fault]]:
    """Return the given values with references resolved, without those that are missing or cannot be a path."""
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for key in user_values:
        try:
            value = interpolation.value(key)
        except ReferenceFault as fault:
            # A passphrase may contain ${ by chance, and is in no message.
            is_secret = key == "encryption_key" and "${oc.env:" not in str(user_values[key])
            faults.append(Fault(key, f"{key}: {'a reference in it cannot be resolved' if is_secret else fault}."))
            continue
        if problem := find_path_problem(value) if key in _PATHS else None:
            faults.append(Fault(key, f"{key}: {problem}."))
        elif not is_missing(value) or value == "" and key in EMPTY_IS_A_VALUE:
            values[key] = str(value) if key in _TEXTS and type(value) is int else value
    return values, faults


def find_path_problem(value: Any) -> str | None:
    """Return why a text, or one in a list or mapping, can be neither a name nor a path."""
    if isinstance(value, list | tuple | Mapping):
        items = value.values() if isinstance(value, Mapping) else value
        return next(filter(None, map(find_path_problem, items)), None)
    if not isinstance(value, str):
        return None
    if _CONTROL.search(value):
        return "it has a line break, another control character or a byte outside UTF-8"
    names = value.split("/")
    if len(value.encode()) > _MAX_PATH or max(len(name.encode()) for name in names) > _MAX_NAME:
        return f"it is too long for a path, which has at most {_MAX_PATH:,} bytes, and {_MAX_NAME} between two slashes"
    return None


def _is_large(value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return any(type(number) is int and abs(number) > _MAX_INTEGER for number in numbers)
