"""The events of a log: one record for each kind."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from reid_tune.journal.event_line import EventError, EventRecord, parse_line, to_line
from reid_tune.journal.run_events import (
    AttemptStarted,
    CandidateSelected,
    ChampionRead,
    EndState,
    EpochReported,
    RunEnded,
    RunEvent,
    RunPaused,
    RunRetried,
    RunSuggested,
    WorkerStarted,
)
from reid_tune.journal.training_events import TrainingEpoch, TrainingHeader

__all__ = [
    "KINDS",
    "ArtifactWritten",
    "AttemptStarted",
    "CandidateSelected",
    "ChampionRead",
    "DriverEnded",
    "DriverStarted",
    "EndState",
    "EpochReported",
    "Event",
    "EventError",
    "ModelRegistered",
    "RunEnded",
    "RunEvent",
    "RunPaused",
    "RunRetried",
    "RunSuggested",
    "SpaceChanged",
    "StageDone",
    "StageStarted",
    "StagesReopened",
    "SweepHeader",
    "TestSetEvaluated",
    "TrainingEpoch",
    "TrainingHeader",
    "WorkerStarted",
    "parse_event",
    "to_line",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepHeader(EventRecord):
    """The first event of a sweep.

    Attributes:
        name: Name of the sweep.
        uid: Random hexadecimal digits that identify the sweep in MLflow.
        lock: `uid` encrypted with the sweep's key, in hexadecimal digits; None without a key.
        tracking_uri: Address of the MLflow server or store, without credentials.
        sweep: Contents of the search-space file, with all defaults.
        spec: The experiment spec by dotted keys, without the encryption key.
        weights: By reference to a model, such as `models:/NAME@ALIAS`, the copy of its weights in the sweep's folder.
    """

    kind = "sweep"
    name: str
    uid: str
    tracking_uri: str
    sweep: dict[str, Any]
    spec: dict[str, Any]
    lock: str | None = None
    weights: dict[str, str] = field(default_factory=dict)

    @property
    def objectives(self) -> list[str]:
        """Names of the metrics of all objectives, the score that decides first."""
        content = self.sweep["objective"]
        return [str(objective["metric"]) for objective in (content if isinstance(content, list) else [content])]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverStarted(EventRecord):
    """A process has started to write the log.

    Attributes:
        pid: Process id on `host`.
        host: Name of the machine.
        user: Name of the user, None without one.
        command: The command line, its program first.
        resumed: Whether the log had events before.
        environment: See `provenance.collect_environment`; of a training the data only.
    """

    kind = "driver_started"
    pid: int
    host: str
    user: str | None
    command: list[str]
    resumed: bool
    environment: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverEnded(EventRecord):
    """The process that writes the log ends.

    Attributes:
        status: FINISHED, FAILED (by an error) or KILLED (by a signal), as MLflow names them.
        reason: The error in one line, None without one.
    """

    kind = "driver_ended"
    status: Literal["FINISHED", "FAILED", "KILLED"]
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(EventRecord):
    """A stage starts, or a resumed driver continues it.

    Attributes:
        stage: Name of the stage.
    """

    kind = "stage_started"
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDone(EventRecord):
    """A stage is done.

    Attributes:
        stage: Name of the stage.
        result: What the stage has computed; later stages and reports read it.
    """

    kind = "stage_done"
    stage: str
    result: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesReopened(EventRecord):
    """Stages that were done are done again.

    Attributes:
        stages: Names of the stages, whose results are dropped.
        runs: Names of the runs that are dropped with them.
    """

    kind = "reopened"
    stages: list[str]
    runs: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceChanged(EventRecord):
    """The user has accepted another search space in a sweep that is continued; earlier trials stay as they are.

    Attributes:
        space: Section `space` of the search-space file from now on.
        weights: By reference to pretrained weights, such as `models:/NAME@ALIAS`, the file that replaces it.
        pretrained: By file of pretrained weights, of the spec and of the space, its SHA-256 digest.
    """

    kind = "space"
    space: dict[str, Any]
    weights: dict[str, str]
    pretrained: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactWritten(EventRecord):
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
class ModelRegistered(EventRecord):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetEvaluated(EventRecord):
    """The stage `test` has scored a model, and has not ended yet.

    Attributes:
        uid: Unique id of the evaluation.
        data: Fingerprints of the test sets by their names.
    """

    kind = "test_evaluated"
    __test__ = False  # not a class of tests
    uid: str
    data: dict[str, str]


Event = (
    SweepHeader
    | TrainingHeader
    | DriverStarted
    | DriverEnded
    | StageStarted
    | StageDone
    | StagesReopened
    | CandidateSelected
    | ChampionRead
    | SpaceChanged
    | RunEvent
    | TrainingEpoch
    | ArtifactWritten
    | TestSetEvaluated
    | ModelRegistered
)

KINDS: dict[str, type[Event]] = {record.kind: record for record in get_args(Event)}


def parse_event(line: bytes) -> Event:
    """Return the event of a line.

    Raises:
        EventError: The line is not an event; the message says why.
    """
    return parse_line(line, KINDS)
