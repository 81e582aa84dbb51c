"""Loading of a spec: YAML file, interpolation, overrides, validation."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
import yaml.constructor
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reid_tune.config.checks import find_errors, find_sampling_errors
from reid_tune.config.defaults import backbone_defaults
from reid_tune.config.experiment import Experiment, canonical_key, flatten, leaf_fields, unflatten
from reid_tune.config.pydantic_messages import combine_errors, validate
from reid_tune.config.tao_keys import is_default, is_inactive_tao_key, unsupported_message
from reid_tune.errors import InputError

__all__ = [
    "build_experiment",
    "load_experiment",
    "nearest_key",
    "parse_overrides",
    "read_yaml",
    "user_set_keys",
    "with_parameters",
]

LEAVES = {key for key, _ in leaf_fields()}
SECTIONS = {key.rsplit(".", depth)[0] for key in LEAVES for depth in range(1, key.count(".") + 1)}


def load_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read, override, interpolate and validate a spec.

    Args:
        path: YAML file.
        overrides: Arguments `key=value`.

    Raises:
        InputError: The file cannot be read or is invalid; the message has one line for each error.
    """
    source = f"{path} with the overrides" if overrides else str(path)
    return build_experiment(read_yaml(path), parse_overrides(overrides), source)


def user_set_keys(path: Path | str, overrides: Sequence[str] = ()) -> set[str]:
    """Return the keys that a file and its overrides set, aliases resolved."""
    keys = [*flatten(read_yaml(path)), *parse_overrides(overrides)]
    return {canonical_key(key) for key in keys}


def build_experiment(tree: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> Experiment:
    """Validate a spec.

    Args:
        tree: Values as nested mappings.
        overrides: Values by dotted key, which replace those of the tree.
        source: Name of the spec in error messages.

    Raises:
        InputError: The spec is invalid; the message has one line for each error.
    """
    user_values, errors = _user_values(tree)
    override_values, override_errors = _user_values(overrides)
    user_values |= _reset_gpus(override_values) | override_values
    values = backbone_defaults(str(user_values.get("model.backbone", "resnet_50"))) | user_values
    experiment = validate(Experiment, _interpolate(unflatten(values), source), source, errors=errors + override_errors)
    if errors := find_errors(experiment):
        raise combine_errors(source, errors)
    return experiment


def with_parameters(base: Experiment, parameters: Mapping[str, Any], source: str) -> Experiment:
    """Return a validated copy of an experiment with some values replaced; values without effect are allowed.

    Args:
        base: The experiment.
        parameters: New values by dotted key.
        source: Name of the new experiment in error messages.

    Raises:
        InputError: A value is out of its range, or a rule between fields is broken.
    """
    experiment = validate(Experiment, unflatten(flatten(base.model_dump()) | dict(parameters)), source)
    if errors := find_sampling_errors(experiment):
        raise combine_errors(source, errors)
    return experiment


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        InputError: The file is missing, unreadable, not YAML, or not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise InputError(f"cannot read {path}: {reason}.") from None
    try:
        tree = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{path}{position}: not valid YAML: {getattr(error, 'problem', None) or error}.") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} does not contain a mapping of keys to values.")
    try:
        json.dumps(tree, default=str)
    except ValueError:
        raise InputError(f"{path}: a YAML anchor contains itself.") from None
    return tree


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that rejects a duplicate key instead of using its last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} is given twice", key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Return arguments `key=value`, with values in YAML, as a mapping.

    Raises:
        InputError: An argument has no `=`, or a value is not YAML.
    """
    parsed = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"'{text}' is not an override: write key=value, for example train.num_epochs=20.")
        try:
            parsed[key] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError:
            raise InputError(f"the value of the override {key} is not valid YAML.") from None
    return parsed


def nearest_key(key: str) -> str | None:
    """Return the schema's key with the most similar spelling, or None if none is similar."""
    same_leaf = [leaf for leaf in sorted(LEAVES) if leaf.rsplit(".")[-1] == key.rsplit(".")[-1]]
    candidates = same_leaf or difflib.get_close_matches(key, LEAVES, n=1, cutoff=0.6)
    return candidates[0] if candidates else None


def _reset_gpus(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults of num_gpus and gpu_ids for each task of which an override sets one, so the file's are void."""
    tasks = {key.split(".")[0] for key in overrides if key.endswith((".num_gpus", ".gpu_ids"))}
    return {f"{task}.num_gpus": 1 for task in tasks} | {f"{task}.gpu_ids": (0,) for task in tasks}


def _user_values(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the user's values by key, aliases resolved, and one message for each key that is wrong."""
    values: dict[str, Any] = {}
    errors = []
    for key, value in flatten({str(k): v for k, v in tree.items()}).items():
        name = canonical_key(key)
        if key in SECTIONS:
            if value not in (None, {}):
                errors.append(f"{key} is a section, but its value is {value!r}: write its keys below it.")
        elif is_inactive_tao_key(key):
            if not is_default(key, value):
                errors.append(unsupported_message(key, value))
        elif name not in LEAVES:
            errors.append(_unknown_key_message(key))
        elif name in values and values[name] != value:
            errors.append(
                f"{name} is given twice (an alias is a second spelling), as {values[name]!r} and {value!r}: keep one."
            )
        else:
            values[name] = value
    return values, errors


def _unknown_key_message(key: str) -> str:
    if key[:1] in ("+", "~"):
        return f"{key}: write key=value, without + or ~."
    nearest = nearest_key(key)
    return f"unknown key {key}" + (f"; did you mean {nearest}?" if nearest else ".")


def _interpolate(tree: dict[str, Any], source: str) -> dict[str, Any]:
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a value"
        reason = "cannot be interpolated" if key == "encryption_key" else str(error).splitlines()[0]
        raise InputError(f"{source}: {key}: {reason}.") from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}
