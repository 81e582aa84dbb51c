"""The events of the runs of a sweep: trials, repeats and refits, and what the stage `confirm` compares."""

from dataclasses import dataclass, field
from typing import Any, Literal

from reid_tune.journal.event_line import EventRecord

__all__ = [
    "AttemptStarted",
    "CandidateSelected",
    "ChampionRead",
    "EndState",
    "EpochReported",
    "RunEnded",
    "RunEvent",
    "RunPaused",
    "RunRetried",
    "RunSuggested",
    "WorkerStarted",
]

EndState = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSuggested(EventRecord):
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
class AttemptStarted(EventRecord):
    """A run is passed to Ray, for the first time or again; it then waits for its resources.

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
class WorkerStarted(EventRecord):
    """The workers of an attempt run: from now on the attempt holds its resources.

    Attributes:
        run: Name of the run.
    """

    kind = "started"
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRetried(EventRecord):
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
class EpochReported(EventRecord):
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
class RunPaused(EventRecord):
    """A trial stops and keeps its last checkpoint, from which a later attempt may continue it.

    Attributes:
        run: Name of the run.
        epoch: The last epoch that it reported, 0 without one.
        reason: Why it was paused, in one line.
        limit: Key of `budget` that was spent; empty for a trial that was paused at a rung.
    """

    kind = "paused"
    run: str
    epoch: int
    reason: str
    limit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(EventRecord):
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
class CandidateSelected(EventRecord):
    """The race of the stage `confirm` has ended, and the comparison with trial 0 begins.

    Attributes:
        rounds: Number of rounds that all contestants have ended.
        trial: Number of the trial that is compared with trial 0; None if there is none.
        ended_by: Key of `budget` that did not allow a further round; None if it allowed all.
    """

    kind = "selected"
    rounds: int
    trial: int | None = None
    ended_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChampionRead(EventRecord):
    """The registry has been asked for the champion, with which the stage `confirm` compares the winner.

    Attributes:
        version: Number of the version that has the alias; None if no version has it.
        parameters: Values by dotted keys of its spec that differ from those of the sweep's spec.
        costs: Values of the objectives that its spec alone decides, by name of the metric.
        unseen_by: File of its pretrained weights, whose identities no validation split of the sweep has; None if they
            have seen none.
        problem: Why its recipe cannot be trained or compared; empty if it can.
    """

    kind = "champion"
    version: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    unseen_by: str | None = None
    problem: str = ""


RunEvent = RunSuggested | AttemptStarted | WorkerStarted | RunRetried | EpochReported | RunPaused | RunEnded
