"""What a sweep has cost, by its log."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median

from reid_tune.journal.event_log import Event

__all__ = ["CostLedger", "EpochTiming", "Cost", "TimingEstimator"]


@dataclass(frozen=True)
class Cost:
    """Hours that drivers worked, and hours of GPUs and CPUs that runs held."""

    hours: float = 0.0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.hours + other.hours, self.gpu_hours + other.gpu_hours, self.cpu_hours + other.cpu_hours)


class CostLedger:
    """What the stages of a log have cost.

    A stage's hours are those between its first and its last event. A run's are those from an `attempt` to its next
    `attempt`, `setback` or `ended`, times what the attempt holds, and belong to the stage that it began in. Nothing
    counts from the last event of a driver that died to the start of the next one.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._stages: dict[str, Cost] = {}
        self._held: dict[str, tuple[str, Cost]] = {}  # by run: its stage, and what an hour of it costs
        self._stage: str | None = None
        self._last = 0.0
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take one event in."""
        kind, run = event["kind"], event.get("run", "")
        if kind == "driver":
            self._stage, self._held = None, {}
        self._stages = self.by_stage(event["time"])
        self._last = event["time"]
        if kind == "stage":
            self._stage = event["stage"] if event["state"] == "started" else None
        elif kind in ("attempt", "setback", "ended"):
            self._held.pop(run, None)
        if kind == "attempt":
            an_hour = Cost(gpu_hours=event.get("gpus", 0), cpu_hours=event.get("cpus", 0))
            self._held[run] = (self._stage or "", an_hour)

    def by_stage(self, now: float | None = None) -> dict[str, Cost]:
        """Costs by stage, of what is at work until `now` (seconds since the epoch), else until the last event.

        A run that began outside any stage counts under an empty name.
        """
        hours = max(0.0, (self._last if now is None else now) - self._last) / 3600
        costs = dict(self._stages)
        working = [(self._stage, Cost(hours=1.0))] if self._stage is not None else []
        for stage, an_hour in [*working, *self._held.values()]:
            costs[stage] = costs.get(stage, Cost()) + _times(hours, an_hour)
        return costs

    def total(self, now: float | None = None) -> Cost:
        """The sum over all stages."""
        return sum(self.by_stage(now).values(), Cost())


def _times(factor: float, cost: Cost) -> Cost:
    return Cost(factor * cost.hours, factor * cost.gpu_hours, factor * cost.cpu_hours)


@dataclass(frozen=True)
class EpochTiming:
    """Seconds that a run takes to start, and for each epoch with what it validates on average."""

    start: float
    epoch: float

    def seconds(self, epochs: float) -> float:
        """Of a whole run."""
        return self.start + epochs * self.epoch


class TimingEstimator:
    """The pace of trials and their repeats by the times of a log."""

    def __init__(self) -> None:
        self._at: dict[str, tuple[int | None, float]] = {}  # by run: last epoch of this attempt, time
        self._gaps: dict[str, list[float]] = {}
        self._first: list[float] = []

    def apply(self, event: Event) -> None:
        """Take one event in."""
        kind, run, now = event["kind"], event.get("run", ""), event["time"]
        if kind == "driver":
            self._at.clear()
        elif kind in ("setback", "ended"):
            self._at.pop(run, None)
        elif kind == "attempt" and not run.startswith("refit/"):
            self._at[run] = (None, now)
        elif kind == "report" and run in self._at:
            epoch, before = self._at[run]
            if epoch is None:
                self._first.append(now - before)
            elif event["epoch"] == epoch + 1:
                self._gaps.setdefault(run, []).append(now - before)
            self._at[run] = (event["epoch"], now)

    @property
    def pace(self) -> EpochTiming | None:
        """The median of the runs' mean seconds from epoch to epoch, and the mean of what their first one takes more.

        None before a run has reported two epochs.
        """
        if not self._gaps:
            return None
        epoch = median(map(fmean, self._gaps.values()))
        return EpochTiming(max(0.0, fmean(self._first) - epoch), epoch)
