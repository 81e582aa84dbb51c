"""The state of a sweep, computed from its events."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from reid_tune.journal.events import (
    AttemptStarted,
    CandidateSelected,
    ChampionRead,
    DriverStarted,
    EpochReported,
    Event,
    RunEnded,
    RunEvent,
    RunPaused,
    RunRetried,
    RunSuggested,
    SpaceChanged,
    StageDone,
    StagesReopened,
    StageStarted,
    SweepHeader,
    TestSetEvaluated,
)

__all__ = ["RunState", "SweepState", "confirm_run", "refit_run", "repeat_number", "replay", "trial_run"]


def trial_run(number: int) -> str:
    """Return the name of a trial's run."""
    return f"trials/{number:04d}"


def confirm_run(number: int, repeat: int) -> str:
    """Return the name of a repeat, from 1, of a trial in the stage `confirm`."""
    return f"confirm/{number:04d}-{repeat}"


def repeat_number(run: str) -> int:
    """Return the number of a repeat, from 1, by the name of its run."""
    return int(run.rpartition("-")[2])


def refit_run(name: str, seed: int = 1) -> str:
    """Return the name of a finalist's refit; refits after the first one differ in the seed."""
    return f"refit/{name}" + (f"-{seed}" if seed > 1 else "")


@dataclass
class RunState:
    """One run: a trial of the search, a repeat of a trial or of the champion, or a refit.

    Attributes:
        parameters: Keys that differ from the spec, and their values; empty for trial 0.
        origin: Source of a trial's parameters, see `RunSuggested`; empty for repeats and refits.
        costs: Values of the objectives that the spec alone decides, by name of the metric.
        state: running, paused, finished, stopped or failed.
        reason: Why it was paused, stopped or failed.
        limit: Key of `budget` for which it is paused; empty for a trial that is paused at a rung.
        failure: Kind of the failure that ended it, see `execution.failures`.
        retries: Kinds of the failures after which it was started again.
        epochs: Metrics by 1-based epoch.
        attempts: Number of times that it was started.
        started: Time of its suggestion, in seconds since the epoch.
        ended: Time of its end or pause, in seconds since the epoch; 0 while it runs.
    """

    name: str
    parameters: dict[str, Any]
    origin: str = ""
    costs: dict[str, float] = field(default_factory=dict)
    state: str = "running"
    reason: str = ""
    limit: str = ""
    failure: str = ""
    retries: list[str] = field(default_factory=list)
    epochs: dict[int, dict[str, Any]] = field(default_factory=dict)
    attempts: int = 0
    started: float = 0.0
    ended: float = 0.0

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.name.rsplit("/", 1)[1])

    def repeat(self, number: int) -> str:
        """Return the name of a repeat, from 1, of this trial or registered version in the stage `confirm`."""
        return f"confirm/{self.name.rsplit('/', 1)[1]}-{number}"

    @property
    def epoch(self) -> int:
        """The last epoch reported, 0 before the first."""
        return max(self.epochs, default=0)

    def last(self, metric: str) -> float | None:
        """Return the metric at the last epoch that has it."""
        values = [metrics[metric] for _, metrics in sorted(self.epochs.items()) if metric in metrics]
        return values[-1] if values else None


@dataclass
class SweepState:
    """The state of a sweep after the events that were applied.

    Attributes:
        first_event: The sweep's header, with the space as it was changed last; None before it; see `header`.
        runs: Runs by name, in the order of their suggestion.
        stages: Results of the stages that are done.
        stage_starts: Time when each stage started, in seconds since the epoch.
        requests: Names of users' requests that became trials.
        selection: End of the race of the stage `confirm`; None before it, and while the stage is done again.
        champion: The champion as the registry had it when it was read last; None before.
        environment: Versions, data and weights of the last driver, see `provenance.collect_environment`.
        former_spaces: Time of each change of the space, in seconds since the epoch, with the space before it.
        test_evaluation: Id of the evaluation by a stage `test` that has not ended, which a resumed one repeats;
            otherwise empty.
    """

    first_event: SweepHeader | None = None
    runs: dict[str, RunState] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    stage_starts: dict[str, float] = field(default_factory=dict)
    requests: set[str] = field(default_factory=set)
    selection: CandidateSelected | None = None
    champion: ChampionRead | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    former_spaces: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    test_evaluation: str = ""

    @property
    def header(self) -> SweepHeader:
        """The first event of the sweep's log.

        Raises:
            LookupError: The sweep has not started.
        """
        if self.first_event is None:
            raise LookupError("the sweep has not started: its log has no header")
        return self.first_event

    @property
    def trials(self) -> list[RunState]:
        """Trials by number."""
        return [run for name, run in sorted(self.runs.items()) if name.startswith("trials/")]

    @property
    def metric(self) -> str:
        """The score that decides, the first objective."""
        return self.header.objectives[0]

    @property
    def costs(self) -> list[str]:
        """The further objectives."""
        return self.header.objectives[1:]

    def finished(self) -> list[RunState]:
        """Return the full-length trials, the best by the metric first; of equal ones the earlier first."""
        metric = self.metric
        full = [trial for trial in self.trials if trial.state == "finished" and trial.last(metric) is not None]
        return sorted(full, key=lambda trial: (-(trial.last(metric) or 0.0), trial.number))

    def apply(self, event: Event) -> None:
        """Change the state by one event; kinds that do not concern the state are ignored.

        Raises:
            LookupError: The event is of a run that does not exist.
        """
        match event:
            case SweepHeader():
                self.first_event = event
            case DriverStarted():
                self.environment = event.environment
            case SpaceChanged():
                self.former_spaces.append((event.time, self.header.sweep.get("space", {})))
                sweep, weights = self.header.sweep | {"space": event.space}, self.header.weights | event.weights
                self.first_event = replace(self.header, sweep=sweep, weights=weights)
                if "preflight" in self.stages:
                    preflight = self.stages["preflight"]
                    pretrained = preflight.get("pretrained", {}) | event.pretrained
                    self.stages["preflight"] = preflight | {"pretrained": pretrained}
            case StageStarted():
                self.stage_starts[event.stage] = event.time
            case TestSetEvaluated():
                self.test_evaluation = event.uid
            case StageDone():
                self.stages[event.stage] = event.result
                self.test_evaluation = ""
            case CandidateSelected():
                self.selection = event
            case ChampionRead():
                self.champion = event
            case StagesReopened():
                self.test_evaluation = ""
                for stage in event.stages:
                    self.stages.pop(stage, None)
                if "confirm" in event.stages:
                    self.selection = None
                for run in event.runs:
                    self.runs.pop(run, None)
            case RunSuggested() | AttemptStarted() | RunRetried() | EpochReported() | RunPaused() | RunEnded():
                self._apply_to_run(event)

    def _apply_to_run(self, event: RunEvent) -> None:
        match event:
            case RunSuggested():
                run = RunState(event.run, event.parameters, event.origin, event.costs, started=event.time)
                self.runs[event.run] = run
                if event.request is not None:
                    self.requests.add(event.request)
            case AttemptStarted():
                run = self.runs[event.run]
                run.attempts = event.attempt
                run.state, run.reason, run.limit, run.ended = "running", "", "", 0.0  # It may have been paused.
            case RunRetried():
                self.runs[event.run].retries.append(event.failure)
            case EpochReported():
                self.runs[event.run].epochs[event.epoch] = event.metrics
            case RunPaused():
                run = self.runs[event.run]
                run.state, run.reason, run.limit, run.ended = "paused", event.reason, event.limit, event.time
            case RunEnded():
                run = self.runs[event.run]
                run.state, run.reason, run.limit, run.ended = event.state, event.reason, "", event.time
                run.failure = event.failure


def replay(events: Iterable[Event]) -> SweepState:
    """Return the state of a sweep after some events."""
    state = SweepState()
    for event in events:
        state.apply(event)
    return state
