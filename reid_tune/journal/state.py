"""What the event log says: the state of a sweep as a projection of its events."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from reid_tune.journal.event_log import Event

__all__ = ["STAGES", "RunState", "SweepState", "confirm_run", "refit_run", "replay", "trial_run"]

STAGES = ("preflight", "search", "confirm", "rerank", "refit", "export", "test", "register")


def trial_run(number: int) -> str:
    """The name of a trial's run."""
    return f"trials/{number:04d}"


def confirm_run(number: int, repeat: int) -> str:
    """The name of a repeat, from 1, of a trial in the stage `confirm`."""
    return f"confirm/{number:04d}-{repeat}"


def refit_run(name: str, seed: int = 1) -> str:
    """The name of a finalist's refit; those behind the first one differ in the seed."""
    return f"refit/{name}" + (f"-{seed}" if seed > 1 else "")


@dataclass
class RunState:
    """One run: a trial of the search, a repeat of it, or a refit.

    Attributes:
        parameters: Keys that differ from the spec, and their values; empty for trial 0.
        origin: Where they come from: the sampler, or a user who gave them.
        costs: What the spec alone decides, by name of the objective.
        state: running, finished, stopped or failed.
        failure: Why it failed, in one word: see `Failure`.
        retries: Failures behind which it was started again.
        epochs: Metrics by 1-based epoch.
        attempts: How often it was started.
    """

    name: str
    parameters: dict[str, Any]
    origin: str = "sampler"
    costs: dict[str, float] = field(default_factory=dict)
    state: str = "running"
    reason: str = ""
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

    @property
    def epoch(self) -> int:
        """The last epoch reported, 0 before the first."""
        return max(self.epochs, default=0)

    def last(self, metric: str) -> float | None:
        """The metric at the last epoch that has it."""
        values = [metrics[metric] for _, metrics in sorted(self.epochs.items()) if metric in metrics]
        return values[-1] if values else None


@dataclass
class SweepState:
    """All of a sweep.

    Attributes:
        stages: Results of those that are done.
        stage_starts: Time when each stage started, in seconds since the epoch.
        requests: Names of users' requests that became trials.
        environment: Versions, data and weights, see `collect_environment`, of the last driver.
    """

    header: Event = field(default_factory=dict)
    runs: dict[str, RunState] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    stage_starts: dict[str, float] = field(default_factory=dict)
    requests: set[str] = field(default_factory=set)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def trials(self) -> list[RunState]:
        """Trials by number."""
        return [run for name, run in sorted(self.runs.items()) if name.startswith("trials/")]

    @property
    def metric(self) -> str:
        """The score that decides, the first objective."""
        return str(self._objectives[0]["metric"])

    @property
    def costs(self) -> list[str]:
        """The further objectives."""
        return [objective["metric"] for objective in self._objectives[1:]]

    @property
    def _objectives(self) -> list[dict[str, Any]]:
        found = self.header.get("sweep", {}).get("objective", {"metric": "mAP"})
        return [found] if isinstance(found, dict) else found

    def finished(self) -> list[RunState]:
        """Full-length trials, the best by the metric first; of equals the earlier one."""
        metric = self.metric
        full = [trial for trial in self.trials if trial.state == "finished" and trial.last(metric) is not None]
        return sorted(full, key=lambda trial: (-(trial.last(metric) or 0.0), trial.number))

    def apply(self, event: Event) -> None:
        """Take one event in; kinds that do not concern the state are passed over."""
        handler = getattr(self, f"_{event['kind']}", None)
        if handler is not None:
            handler(event)

    def _sweep(self, event: Event) -> None:
        self.header = event

    def _stage(self, event: Event) -> None:
        if event["state"] == "done":
            self.stages[event["stage"]] = event["result"]
        else:
            self.stage_starts[event["stage"]] = event["time"]

    def _driver(self, event: Event) -> None:
        self.environment = event.get("environment", {})

    def _reopened(self, event: Event) -> None:
        for stage in event["stages"]:
            self.stages.pop(stage, None)
        for run in event["runs"]:
            self.runs.pop(run, None)

    def _suggested(self, event: Event) -> None:
        more = {key: event[key] for key in ("origin", "costs") if key in event}
        self.runs[event["run"]] = RunState(event["run"], event["parameters"], started=event["time"], **more)
        self.requests |= {event["request"]} if "request" in event else set()

    def _attempt(self, event: Event) -> None:
        self.runs[event["run"]].attempts = event["attempt"]

    def _setback(self, event: Event) -> None:
        self.runs[event["run"]].retries.append(event["failure"])

    def _report(self, event: Event) -> None:
        self.runs[event["run"]].epochs[event["epoch"]] = event["metrics"]

    def _ended(self, event: Event) -> None:
        run = self.runs[event["run"]]
        run.state, run.reason, run.ended = event["state"], event.get("reason", ""), event["time"]
        run.failure = event.get("failure", "")


def replay(events: Iterable[Event]) -> SweepState:
    """The state behind some events."""
    state = SweepState()
    for event in events:
        state.apply(event)
    return state
