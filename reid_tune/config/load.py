"""Loading of a spec: YAML file, overrides, references, validation for a task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reid_tune.config.checks import describe_without_effect, find_errors, find_sampling_errors, find_warnings
from reid_tune.config.experiment import Experiment, canonical_key, flatten, unflatten
from reid_tune.config.keys import spec_values
from reid_tune.config.model import is_vit
from reid_tune.config.pydantic_messages import Fault, combine_errors, shorten, validate
from reid_tune.config.resolved_values import ResolvedValues, resolve_values
from reid_tune.config.tao_keys import unsupported_message
from reid_tune.config.task_keys import is_read, is_relevant, require_fields
from reid_tune.config.unused_fields import unused_fields
from reid_tune.config.user_values import UserValues, read_user_values
from reid_tune.config.yaml_reader import parse_overrides, read_yaml_file

__all__ = ["LoadedSpec", "build_experiment", "build_spec", "load_experiment", "load_spec", "with_parameters"]

_SHOWN = 5  # faults in a note


@dataclass(frozen=True)
class LoadedSpec:
    """A spec that a task can run.

    Attributes:
        experiment: All values.
        user_keys: Keys to which the user has given a value, aliases resolved.
        notes: Lines about values without effect, values that were left out, and doubtful settings.
    """

    experiment: Experiment
    user_keys: frozenset[str]
    notes: tuple[str, ...]


def load_experiment(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment in a spec for all tasks, see `load_spec`."""
    return load_spec(path, overrides).experiment


def load_spec(
    path: Path | str,
    overrides: Sequence[str] = (),
    task: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> LoadedSpec:
    """Read, override, interpolate and validate a spec.

    Args:
        path: YAML file.
        overrides: Arguments `key=value`.
        task: Task that will run, of which only the fields that it reads must be valid; None checks all fields.
        arguments: Values by dotted key that are given by other arguments of the command.

    Raises:
        InputError: The file cannot be read or is invalid, or the task needs a field that is not given; the message has
            one line for each error.
    """
    tree = read_yaml_file(path)
    pairs = parse_overrides(overrides) | dict(arguments or {})
    line_of = _line_finder(tree.lines, pairs)
    source = f"{path} with the overrides" if overrides else str(path)
    spec, values = _build(tree, pairs, source, task, line_of)
    if task:
        require_fields(spec.experiment, task, str(path), values.origin, line_of)
    return spec


def build_experiment(tree: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> Experiment:
    """Return the experiment of a spec for all tasks, see `build_spec`."""
    return build_spec(tree, overrides, source).experiment


def build_spec(
    tree: Mapping[str, Any],
    overrides: Mapping[str, Any],
    source: str,
    task: str | None = None,
) -> LoadedSpec:
    """Validate a spec.

    Args:
        tree: Values as nested mappings.
        overrides: Values by dotted key, which replace those of the tree.
        source: Name of the spec in error messages.
        task: Task that will run; None checks all fields.

    Raises:
        InputError: The spec is invalid; the message has one line for each error.
    """
    return _build(tree, overrides, source, task, lambda key: None)[0]


def _build(
    tree: Mapping[str, Any],
    overrides: Mapping[str, Any],
    source: str,
    task: str | None,
    line_of: Callable[[str], int | None],
) -> tuple[LoadedSpec, ResolvedValues]:
    user = read_user_values(tree).overridden_by(read_user_values(overrides))
    values = resolve_values(user, line_of)
    findings = _Findings(user, values, task)
    if errors := findings.errors():
        raise combine_errors(source, errors)
    return LoadedSpec(values.experiment, frozenset(user.keys), tuple(findings.notes())), values


def with_parameters(base: Experiment, parameters: Mapping[str, Any], source: str) -> Experiment:
    """Return a validated copy of an experiment with some values replaced; values without effect are allowed.

    Args:
        base: The experiment.
        parameters: New values by dotted key; names of bundles are left out.
        source: Name of the new experiment in error messages.

    Raises:
        InputError: A value is out of its range, or a rule between fields is broken.
    """
    experiment = validate(Experiment, unflatten(flatten(base.model_dump()) | spec_values(parameters)), source)
    if errors := find_sampling_errors(experiment):
        raise combine_errors(source, errors)
    return experiment


class _Findings:
    """Errors of a spec for a task, and notes on faults in fields that the task does not read or that do nothing."""

    def __init__(self, user: UserValues, values: ResolvedValues, task: str | None) -> None:
        self._user, self._values, self._task = user, values, task
        faults = user.faults + values.faults
        self._read_faults = [fault for fault in faults if is_relevant(fault, task)]
        self._unread_faults = [fault for fault in faults if not is_relevant(fault, task)]
        # A task that opens weights of another tool resizes the position table of a ViT by it.
        opens_vit = task in ("evaluate", "inference", "export") and is_vit(values.experiment.model.backbone)
        self._effective = {"model.pretrain_hw_ratio"} if opens_vit else set()
        unused = [field for field in unused_fields(values.experiment) if field.key not in self._effective]
        self._reasons = {field.key: field.reason for field in unused if not field.is_strict}
        self._idle_faults = [fault for fault in self._read_faults if fault.key in self._reasons]

    def errors(self) -> list[str]:
        """Return one sentence for each error."""
        errors = [fault.message for fault in self._read_faults if fault not in self._idle_faults]
        backbone = self._values.experiment.model.backbone
        for key, value in self._values.tao.items():
            text = shorten(self._user.tao[key])
            if is_read(key, self._task) and (message := unsupported_message(key, value, backbone, text)):
                errors.append(message)
        if self._task in (None, "train"):
            # Their values are the defaults, about which the user wants to read nothing.
            faulty_keys = [fault.key for fault in self._read_faults]
            rules = map(self._values.as_written, find_errors(self._values.experiment))
            errors += [rule for rule in rules if not any(f"{key} =" in rule for key in faulty_keys)]
        return list(dict.fromkeys(errors))

    def notes(self) -> list[str]:
        """Return lines about values that were left out, values without effect, and doubtful settings."""
        keys = {key for key in self._user.keys if is_read(key, self._task)}
        notes = []
        if placeholders := sorted(key for key in self._user.placeholders if is_read(key, self._task)):
            notes.append(f"not given ('???'), so the defaults are used: {', '.join(placeholders)}")
        if self._task in (None, "train"):
            notes += find_warnings(self._values.experiment)
        keys -= self._effective | {fault.key for fault in self._idle_faults}
        notes += describe_without_effect(self._values.experiment, keys)
        if self._idle_faults:
            faults = [replace(fault, message=self._with_reason(fault)) for fault in self._idle_faults]
            notes.append(f"no effect, so left out: {_join(faults)}")
        if self._unread_faults:
            notes.append(f"{self._task} does not read these, so they are left out: {_join(self._unread_faults)}")
        return notes

    def _with_reason(self, fault: Fault) -> str:
        return f"{fault.message.rstrip('.')} ({self._reasons[fault.key]})"


def _join(faults: Sequence[Fault]) -> str:
    messages = [fault.message.rstrip(".") for fault in faults[:_SHOWN]]
    return "; ".join(messages) + (f"; and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else "")


def _line_finder(lines: Mapping[str, int], overrides: Mapping[str, Any]) -> Callable[[str], int | None]:
    """Return a function that finds the line of a key in a file, unless an override replaces it."""
    numbers = {canonical_key(key): line for key, line in lines.items()}
    replaced = {canonical_key(key) for key in overrides}
    return lambda key: None if key in replaced else numbers.get(key)
