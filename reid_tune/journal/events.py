"""The events of a log: one record for each kind, and the form of its line."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from time import time
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

__all__ = [
    "KINDS",
    "ArtifactWritten",
    "AttemptStarted",
    "DriverEnded",
    "DriverStarted",
    "EndState",
    "EpochReported",
    "Event",
    "EventError",
    "ModelRegistered",
    "RunEnded",
    "RunRetried",
    "RunSuggested",
    "StageDone",
    "StageStarted",
    "StagesReopened",
    "SweepHeader",
    "TrainingEpoch",
    "TrainingHeader",
    "parse_event",
    "to_line",
]


EndState = Literal["finished", "stopped", "failed"]


class EventError(ValueError):
    """A line of a log is not an event; the message says why, without the line's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What all events have.

    Attributes:
        kind: Name of the record in a log.
        time: Seconds since the epoch.
    """

    kind: ClassVar[str]
    time: float = field(default_factory=time)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepHeader(_Record):
    """The first event of a sweep.

    Attributes:
        name: Name of the sweep.
        uid: Random hexadecimal digits that identify the sweep in MLflow.
        lock: `uid` encrypted with the sweep's key, in hexadecimal digits; None without a key.
        tracking_uri: Address of the MLflow server or store, without credentials.
        sweep: Contents of the search-space file, with all defaults.
        spec: The experiment spec by dotted keys, without the encryption key.
        weights: Reference to a registered model that the pretrained weights were copied from; None without one.
    """

    kind = "sweep"
    name: str
    uid: str
    tracking_uri: str
    sweep: dict[str, Any]
    spec: dict[str, Any]
    lock: str | None = None
    weights: str | None = None

    @property
    def objectives(self) -> list[str]:
        """Names of the metrics of all objectives, the score that decides first."""
        content = self.sweep["objective"]
        return [str(objective["metric"]) for objective in (content if isinstance(content, list) else [content])]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingHeader(_Record):
    """The first event of a single training that is tracked in MLflow.

    Attributes:
        name: Name of the run in MLflow.
        experiment: Name of the experiment in MLflow.
        uid: Random hexadecimal digits that identify the training in MLflow.
        tracking_uri: Address of the MLflow server or store, without credentials.
        spec: The experiment spec by dotted keys, without the encryption key.
    """

    kind = "train"
    name: str
    experiment: str
    uid: str
    tracking_uri: str
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverStarted(_Record):
    """A process has started to write the log.

    Attributes:
        pid: Process id on `host`.
        host: Name of the machine.
        user: Name of the user, None without one.
        command: The command line, its program first.
        resumed: Whether the log had events before.
        environment: Code, libraries, machine, data and weights, see `provenance.collect_environment`; a training has
            `data` only.
    """

    kind = "driver_started"
    pid: int
    host: str
    user: str | None
    command: list[str]
    resumed: bool
    environment: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverEnded(_Record):
    """The process that writes the log ends.

    Attributes:
        status: FINISHED, FAILED (by an error) or KILLED (by a signal), as MLflow names them.
        reason: The error in one line, None without one.
    """

    kind = "driver_ended"
    status: Literal["FINISHED", "FAILED", "KILLED"]
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(_Record):
    """A stage starts, or a resumed driver continues it.

    Attributes:
        stage: Name of the stage.
    """

    kind = "stage_started"
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDone(_Record):
    """A stage is done.

    Attributes:
        stage: Name of the stage.
        result: What the stage has computed; later stages and reports read it.
    """

    kind = "stage_done"
    stage: str
    result: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesReopened(_Record):
    """Stages that were done are done again.

    Attributes:
        stages: Names of the stages, whose results are dropped.
        runs: Names of the runs that are dropped with them.
    """

    kind = "reopened"
    stages: list[str]
    runs: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSuggested(_Record):
    """A run exists from now on: a trial, a repeat or a refit.

    Attributes:
        run: Name of the run.
        parameters: Values by dotted keys of the spec that the run changes; empty for trial 0.
        origin: Source of a trial's parameters: `spec` (trial 0), `sampler`, `user` (a request), otherwise that of a
            warm start; empty for repeats and refits.
        costs: Values of the objectives that the spec alone decides, by name of the metric.
        request: Name of the user's request that became this trial, None without one.
    """

    kind = "suggested"
    run: str
    parameters: dict[str, Any]
    origin: str = ""
    costs: dict[str, float] = field(default_factory=dict)
    request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(_Record):
    """A run is started, for the first time or again.

    Attributes:
        run: Name of the run.
        attempt: Number of the attempt, from 1.
        cpus: CPUs that all its workers hold together.
        gpus: GPUs that all its workers hold together; below 1 a share of one.
    """

    kind = "attempt"
    run: str
    attempt: int
    cpus: int
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRetried(_Record):
    """An attempt of a run failed, and another attempt will follow.

    Attributes:
        run: Name of the run.
        failure: Kind of the failure, see `execution.failures`.
        reason: The failure in one line.
    """

    kind = "retry"
    run: str
    failure: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReported(_Record):
    """A run of a sweep has finished an epoch.

    Attributes:
        run: Name of the run.
        epoch: The epoch, from 1.
        metrics: Losses, learning rate, speed and, after a validation, scores as fractions.
        nodes: Addresses of the nodes that its workers run on.
        usage: Mean use of the machine during the epoch, by MLflow's names of system metrics.
    """

    kind = "report"
    run: str
    epoch: int
    metrics: dict[str, Any]
    nodes: list[str] = field(default_factory=list)
    usage: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEpoch(_Record):
    """A single training that is tracked in MLflow has finished an epoch.

    Attributes:
        epoch: The epoch, from 1.
        metrics: As of `EpochReported`.
        usage: As of `EpochReported`.
    """

    kind = "epoch"
    epoch: int
    metrics: dict[str, Any]
    usage: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(_Record):
    """A run has ended for good.

    Attributes:
        run: Name of the run.
        state: finished (at its last epoch), stopped (pruned, by request, or by the budget) or failed.
        epoch: The last epoch that it reported, 0 without one.
        reason: Why it was stopped or failed, in one line; empty if finished.
        failure: Kind of the failure, see `execution.failures`; empty if it did not fail.
    """

    kind = "ended"
    run: str
    state: EndState
    epoch: int
    reason: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactWritten(_Record):
    """A file that MLflow is to store.

    Attributes:
        path: The file, relative to the log's folder or absolute.
        folder: Folder among the run's artifacts; empty for their top.
        run: Name of the run that it belongs to; None for the sweep or the training itself.
    """

    kind = "artifact"
    path: str
    folder: str
    run: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRegistered(_Record):
    """The winner is a version in the model registry.

    Attributes:
        model: Name of the registered model.
        version: Number of the version.
        alias: Alias that the version was given.
    """

    kind = "registered"
    model: str
    version: int
    alias: str


Event = (
    SweepHeader
    | TrainingHeader
    | DriverStarted
    | DriverEnded
    | StageStarted
    | StageDone
    | StagesReopened
    | RunSuggested
    | AttemptStarted
    | RunRetried
    | EpochReported
    | TrainingEpoch
    | RunEnded
    | ArtifactWritten
    | ModelRegistered
)

KINDS: dict[str, type[Event]] = {record.kind: record for record in get_args(Event)}


def to_line(event: Event) -> bytes:
    """Return the line of an event: a JSON object with `kind` and all fields, without the line's end.

    Raises:
        ValueError: A value is not JSON, such as NaN.
    """
    content = {"kind": event.kind} | {item.name: getattr(event, item.name) for item in fields(event)}
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def parse_event(line: bytes) -> Event:
    """Return the event of a line.

    Raises:
        EventError: The line is not a JSON object, its kind or a field is unknown, or a field is missing or has another
            type.
    """
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise EventError("it is not a JSON object")
    kind = content.pop("kind", None)
    record = KINDS.get(kind) if isinstance(kind, str) else None
    if record is None:
        raise EventError(f"its kind is {kind!r}, but the kinds are {', '.join(KINDS)}")
    checks = _field_checks(record)
    if missing := checks.keys() - content.keys():
        raise EventError(f"{kind!r} lacks the field {', '.join(map(repr, sorted(missing)))}")
    for name, value in content.items():
        if name not in checks:
            raise EventError(f"{kind!r} has an unknown field {name!r}")
        type_name, is_valid = checks[name]
        if not is_valid(value):
            raise EventError(f"the field {name!r} of {kind!r} must be {type_name}, not {json.dumps(value)[:80]}")
    return record(**content)


@cache
def _field_checks(record: type[_Record]) -> dict[str, tuple[str, Callable[[Any], bool]]]:
    """Return the name of the type and the check of each field of a record."""
    hints = get_type_hints(record)
    return {item.name: (_type_name(hints[item.name]), _type_check(hints[item.name])) for item in fields(record)}


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def _type_check(hint: Any) -> Callable[[Any], bool]:
    """Return a function that checks whether a value of JSON has a type."""
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin in (Union, UnionType):
            options = [_type_check(argument) for argument in arguments]
            return lambda value: any(option(value) for option in options)
        case origin if origin is Literal:
            return lambda value: value in arguments
        case origin if origin is list:
            is_item = _type_check(arguments[0])
            return lambda value: isinstance(value, list) and all(map(is_item, value))
        case origin if origin is dict:
            is_value = _type_check(arguments[1])
            return lambda value: isinstance(value, dict) and all(map(is_value, value.values()))
    if hint is Any:
        return lambda value: True
    types = (int, float) if hint is float else (hint,)
    return lambda value: type(value) in types
