"""Cost and timing of a sweep, computed from its log."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median

from reid_tune.journal.events import (
    AttemptStarted,
    DriverStarted,
    EpochReported,
    Event,
    RunEnded,
    RunPaused,
    RunRetried,
    StageDone,
    StageStarted,
    WorkerStarted,
)

__all__ = ["Cost", "CostLedger", "EpochTiming", "TimingEstimator"]


@dataclass(frozen=True)
class Cost:
    """Hours that drivers worked, hours of GPUs and CPUs that runs held, and hours that runs waited for them."""

    hours: float = 0.0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    waiting_hours: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.hours + other.hours,
            self.gpu_hours + other.gpu_hours,
            self.cpu_hours + other.cpu_hours,
            self.waiting_hours + other.waiting_hours,
        )

    def __mul__(self, factor: float) -> "Cost":
        return Cost(factor * self.hours, factor * self.gpu_hours, factor * self.cpu_hours, factor * self.waiting_hours)


class CostLedger:
    """Cost of each stage of a log, and hours of each run.

    A stage's hours are those between its first and its last event. A run's hours are those from the start of an
    attempt's workers to the next attempt, its failure, its pause or the run's end, times the CPUs and GPUs that the
    attempt holds. From the attempt to the start of its workers, or to the first report, the run waits. Both belong to
    the stage in which the attempt started. The time from the last event of a driver that died to the start of the next
    driver does not count.

    Args:
        events: Events to start with.

    Attributes:
        run_hours: Hours of all attempts by run, until the last event.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.run_hours: dict[str, float] = {}
        self._stages: dict[str, Cost] = {}
        self._running: dict[str, tuple[str, Cost]] = {}  # by run: its stage, and the cost of an hour
        self._waiting: dict[str, tuple[str, Cost]] = {}  # the same for runs whose workers have not started
        self._stage: str | None = None
        self._last_time = 0.0
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Add the cost of the time since the last event, and learn what costs from now on."""
        if isinstance(event, DriverStarted):
            self._stage, self._running, self._waiting = None, {}, {}
        self._stages = self.by_stage(event.time)
        for run in self._running:
            self.run_hours[run] = self.run_hours.get(run, 0.0) + self._hours_until(event.time)
        self._last_time = event.time
        match event:
            case StageStarted():
                self._stage = event.stage
            case StageDone():
                self._stage = None
            case AttemptStarted():
                hourly_cost = Cost(gpu_hours=event.gpus, cpu_hours=event.cpus)
                self._running.pop(event.run, None)
                self._waiting[event.run] = (self._stage or "", hourly_cost)
            case WorkerStarted() | EpochReported() if event.run in self._waiting:
                self._running[event.run] = self._waiting.pop(event.run)
            case RunRetried() | RunPaused() | RunEnded():
                self._running.pop(event.run, None)
                self._waiting.pop(event.run, None)

    def by_stage(self, now: float | None = None) -> dict[str, Cost]:
        """Return the cost by stage; attempts that started outside any stage count under an empty name.

        Args:
            now: Time in seconds since the epoch until which what is running counts; by default that of the last event.
        """
        hours = self._hours_until(self._last_time if now is None else now)
        costs = dict(self._stages)
        driver = [(self._stage, Cost(hours=1.0))] if self._stage is not None else []
        waiting = [(stage, Cost(waiting_hours=1.0)) for stage, _ in self._waiting.values()]
        for stage, hourly_cost in [*driver, *self._running.values(), *waiting]:
            costs[stage] = costs.get(stage, Cost()) + hourly_cost * hours
        return costs

    def _hours_until(self, time: float) -> float:
        """Return the hours since the last event, none where the clock was set back."""
        return max(0.0, time - self._last_time) / 3600

    def total(self, now: float | None = None) -> Cost:
        """Return the sum over all stages; for `now` see `by_stage`."""
        return sum(self.by_stage(now).values(), Cost())


@dataclass(frozen=True)
class EpochTiming:
    """Seconds that a run takes.

    Attributes:
        start: Seconds from the start of the workers until the first epoch starts.
        epoch: Seconds of an epoch, with the mean of its validations.
    """

    start: float
    epoch: float

    def seconds(self, epochs: float) -> float:
        """Return the seconds of a whole run."""
        return self.start + epochs * self.epoch


class TimingEstimator:
    """Estimate of the timing of trials and their repeats by the times of a log."""

    def __init__(self) -> None:
        self._last_report: dict[str, tuple[int | None, float]] = {}  # by run: last epoch of this attempt, and time
        self._epoch_seconds: dict[str, list[float]] = {}
        self._first_epoch_seconds: list[float] = []

    def apply(self, event: Event) -> None:
        """Learn from one event."""
        match event:
            case DriverStarted():
                self._last_report.clear()
            case RunRetried() | RunPaused() | RunEnded() | AttemptStarted():
                self._last_report.pop(event.run, None)
            case WorkerStarted() if not event.run.startswith("refit/"):
                self._last_report[event.run] = (None, event.time)
            case EpochReported() if event.run in self._last_report:
                last_epoch, last_time = self._last_report[event.run]
                if last_epoch is None:
                    self._first_epoch_seconds.append(event.time - last_time)
                elif event.epoch == last_epoch + 1:
                    self._epoch_seconds.setdefault(event.run, []).append(event.time - last_time)
                self._last_report[event.run] = (event.epoch, event.time)

    @property
    def timing(self) -> EpochTiming | None:
        """The timing of a run: the median over runs of an epoch's mean seconds, and the mean start-up.

        The start-up is what the first epoch of an attempt takes longer than the others. None before a run has reported
        two epochs.
        """
        if not self._epoch_seconds:
            return None
        epoch = median(map(fmean, self._epoch_seconds.values()))
        return EpochTiming(max(0.0, fmean(self._first_epoch_seconds) - epoch), epoch)

    def timing_of(self, run: str) -> EpochTiming | None:
        """Return the timing with the mean seconds of a run's own epochs; None before it has reported two of them."""
        timing, seconds = self.timing, self._epoch_seconds.get(run)
        return EpochTiming(timing.start, fmean(seconds)) if timing and seconds else None
