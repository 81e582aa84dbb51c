"""From a YAML file and overrides to a checked experiment."""

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
from reid_tune.config.tao_keys import is_default, is_inactive_tao_key, unsupported_message
from reid_tune.config.validation import combine_errors, validate
from reid_tune.errors import InputError

__all__ = [
    "build_experiment",
    "user_set_keys",
    "load_experiment",
    "nearest_key",
    "parse_overrides",
    "read_yaml",
    "with_parameters",
]

LEAVES = {key for key, _ in leaf_fields()}
SECTIONS = {key.rsplit(".", depth)[0] for key in LEAVES for depth in range(1, key.count(".") + 1)}


def load_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read, interpolate, override and validate a spec.

    Raises:
        InputError: the file cannot be read, or all that is wrong with it, a line for each fault.
    """
    source = f"{path} with the overrides" if overrides else str(path)
    return build_experiment(read_yaml(path), parse_overrides(overrides), source)


def user_set_keys(path: Path | str, overrides: Sequence[str] = ()) -> set[str]:
    """The keys that a file and its overrides set, by their own names."""
    return {canonical_key(key) for key in flatten(read_yaml(path))} | {
        canonical_key(key) for key in parse_overrides(overrides)
    }


def build_experiment(tree: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> Experiment:
    """Validate a spec given as nested mappings; `overrides` are dotted keys, `source` names it in errors."""
    given, wrong = _user_values(tree)
    over, wrong_too = _user_values(overrides)
    given |= _gpus_of_the_command_line(over) | over
    values = backbone_defaults(str(given.get("model.backbone", "resnet_50"))) | given
    experiment = validate(Experiment, _interpolate(unflatten(values), source), source, errors=wrong + wrong_too)
    wrong = find_errors(experiment)
    if wrong:
        raise combine_errors(source, wrong)
    return experiment


def with_parameters(base: Experiment, parameters: Mapping[str, Any], source: str) -> Experiment:
    """A checked experiment with some values replaced, by dotted key; values without effect are no fault here.

    Raises:
        InputError: a value is out of its range, or a rule between fields is broken.
    """
    experiment = validate(Experiment, unflatten(flatten(base.model_dump()) | dict(parameters)), source)
    wrong = find_sampling_errors(experiment)
    if wrong:
        raise combine_errors(source, wrong)
    return experiment


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: no such file, unreadable, not YAML, or not a mapping.
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
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{path}{place}: not valid YAML: {getattr(error, 'problem', None) or error}.") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds no mapping of keys to values.")
    try:
        json.dumps(tree, default=str)
    except ValueError:
        raise InputError(f"{path}: a YAML anchor contains itself.") from None
    return tree


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key written twice instead of taking the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`key=value` arguments as a mapping; values are YAML.

    Raises:
        InputError: an argument without `=`, or a value that is not YAML.
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
    """The schema's key that is spelled most like this one, if any is near."""
    near = difflib.get_close_matches(key, LEAVES, n=1, cutoff=0.6)
    same_leaf = [known for known in sorted(LEAVES) if known.rsplit(".")[-1] == key.rsplit(".")[-1]]
    found = same_leaf or near
    return found[0] if found else None


def _gpus_of_the_command_line(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults for the other of a task's num_gpus and gpu_ids, where the command line sets one: the file's is void."""
    tasks = {key.split(".")[0] for key in overrides if key.endswith((".num_gpus", ".gpu_ids"))}
    return {f"{task}.num_gpus": 1 for task in tasks} | {f"{task}.gpu_ids": (0,) for task in tasks}


def _user_values(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    given: dict[str, Any] = {}
    wrong = []
    for key, value in flatten({str(k): v for k, v in tree.items()}).items():
        name = canonical_key(key)
        if key in SECTIONS:
            if value not in (None, {}):
                wrong.append(f"{key} is a section, but its value is {value!r}: write its keys below it.")
        elif is_inactive_tao_key(key):
            if not is_default(key, value):
                wrong.append(unsupported_message(key, value))
        elif name not in LEAVES:
            wrong.append(_unknown(key))
        elif name in given and given[name] != value:
            wrong.append(
                f"{name} is given twice (an alias is a second spelling), as {given[name]!r} and {value!r}: keep one."
            )
        else:
            given[name] = value
    return given, wrong


def _unknown(key: str) -> str:
    if key[:1] in ("+", "~"):
        return f"{key}: write key=value; neither + nor ~ is used here."
    near = nearest_key(key)
    return f"unknown key {key}" + (f"; did you mean {near}?" if near else ".")


def _interpolate(tree: dict[str, Any], source: str) -> dict[str, Any]:
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a value"
        reason = "cannot be interpolated" if key == "encryption_key" else str(error).splitlines()[0]
        raise InputError(f"{source}: {key}: {reason}.") from None
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}
