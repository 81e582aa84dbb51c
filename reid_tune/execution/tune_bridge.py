"""The connection between a source of runs and Ray Tune's searcher, scheduler and callbacks."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from reid_tune.execution.failures import Failure
from reid_tune.execution.ray_private import remove_orphaned_groups, request_stop
from reid_tune.execution.run_source import Attempt, RunSource
from reid_tune.execution.worker_reports import is_start, unpack

__all__ = ["PollCallback", "TuneBridge"]

_POLL_SECONDS = 1
_Result = TypeVar("_Result")


class TuneBridge:
    """Connects a source with Tune's searcher, which starts runs, and its scheduler, which sees every report.

    An error that the source raises is kept in `error`, and all runs are ended: Tune would hide it in another
    error.

    Args:
        source: The source of runs.
        capacity: Returns the number of runs that fit on the cluster.
        make_config: Returns the configuration of Tune's trial for an attempt.
        timeout: Seconds without a report after which a run is given up.
    """

    def __init__(
        self,
        source: RunSource,
        capacity: Callable[[], int],
        make_config: Callable[[Attempt], dict[str, Any]],
        timeout: float,
    ) -> None:
        self.source = source
        self.capacity = capacity
        self.max_concurrent = capacity()
        self.make_config = make_config
        self.timeout = timeout
        self.error: Exception | None = None
        self.runs: dict[str, str] = {}  # names of the runs that have not ended, by the ids of Tune's trials
        self.last_activity: dict[str, float] = {}
        self.ended: set[str] = set()  # ids of trials whose end the source knows
        self.searcher = _Searcher(self)
        self.scheduler = _Scheduler(self)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its arguments into a snapshot that nobody reads.
        return object, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> "TuneBridge":
        return self

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of the next run, Tune's FINISHED after the last one, None while there is none."""
        if self._call_source(self.source.is_done, True):
            return str(Searcher.FINISHED)
        if not self.runs:
            self.max_concurrent = self._call_source(self.capacity, 0)  # Tune now calls nothing but its searcher.
        has_capacity = len(self.runs) < self.max_concurrent
        attempt = self._call_source(self.source.next_attempt, None) if has_capacity else None
        if attempt is None:
            return None
        self.runs[trial_id], self.last_activity[trial_id] = attempt.run, time.monotonic()
        return self.make_config(attempt)

    def report(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Pass a report on to the source; False ends the run."""
        self.last_activity[trial_id] = time.monotonic()
        if trial_id in self.ended:
            return False
        run, metrics = self.runs[trial_id], unpack(result)
        if is_start(metrics):
            if continues := self._call_source(lambda: self.source.is_running(run), False):
                self._call_source(lambda: self.source.report_started(run), None)
        else:
            continues = self._call_source(lambda: self.source.report(run, metrics), False)
        if not continues:
            self.ended.add(trial_id)
        return continues

    def complete(self, trial_id: str, error: str | None) -> None:
        """Remove a run whose process has ended; where the source did not end the run, it is lost.

        Args:
            trial_id: Id of Tune's trial.
            error: Text of the error that ended the process, None without one.
        """
        run = self.runs.pop(trial_id)
        if trial_id not in self.ended:
            self._report_lost(run, _process_failure(error))

    def mark_pending(self, trial_id: str) -> None:
        """Note that a run waits for its resources: another job holds them, or the node has yet to join."""
        if trial_id in self.runs:
            self.last_activity[trial_id] = time.monotonic()

    def trials_to_stop(self) -> list[str]:
        """Poll the source, and return the ids of Tune's trials that are to be stopped; called once a second."""
        self._call_source(self.source.poll, None)
        self.max_concurrent = self._call_source(self.capacity, 0)
        earliest = time.monotonic() - self.timeout
        for trial_id, run in self.runs.items():
            if trial_id in self.ended:
                continue
            if self.last_activity[trial_id] < earliest:
                self._report_lost(run, Failure("timeout", f"no report for {self.timeout / 60:g} minutes"))
                self.ended.add(trial_id)
            elif not self._call_source(partial(self.source.is_running, run), False):
                self.ended.add(trial_id)
        return [trial_id for trial_id in self.runs if trial_id in self.ended]

    def _report_lost(self, run: str, failure: Failure) -> None:
        self._call_source(lambda: self.source.report_lost(run, failure), None)

    def _call_source(self, method: Callable[[], _Result], default: _Result) -> _Result:
        """Return the source's answer, or the default once the source has raised an error: it is not called again."""
        if self.error is None:
            try:
                return method()
            except Exception as error:
                self.error = error
        return default


def _process_failure(error: str | None) -> Failure:
    if error is None:
        return Failure("lost_worker", "the run ended before its last epoch")
    if "OutOfMemoryError" in error:
        return Failure("lost_worker", "Ray ended the worker process because the node ran out of memory")
    return Failure("lost_worker", "the worker process died")


class _Searcher(Searcher):
    def __init__(self, bridge: TuneBridge) -> None:
        super().__init__(metric="training_iteration", mode="max")
        self.bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self.bridge.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.bridge.complete(trial_id, self.bridge.scheduler.errors.pop(trial_id, "") if error else None)

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from its event log")


class _Scheduler(FIFOScheduler):
    def __init__(self, bridge: TuneBridge) -> None:
        super().__init__()
        self.bridge = bridge
        self.errors: dict[str, str] = {}
        self.controller: Any = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.controller = tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        continues = self.bridge.report(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if continues else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        # Tune calls this before the searcher hears of the end.
        self.errors[trial.trial_id] = str(trial.get_error())


class PollCallback(tune.Callback):
    """Once a second, frees the resources of stopped trainers, and stops the runs that the source has ended."""

    def __init__(self, bridge: TuneBridge) -> None:
        self.bridge = bridge
        self.last_time = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self.last_time < _POLL_SECONDS:
            return
        self.last_time = time.monotonic()
        with contextlib.suppress(Exception):  # A failing clean-up must not end the sweep; the next poll tries again.
            remove_orphaned_groups()
        for trial in trials:
            if trial.status == "PENDING":
                self.bridge.mark_pending(trial.trial_id)
        trial_ids = self.bridge.trials_to_stop()
        for trial in trials:
            if trial.trial_id in trial_ids and not trial.is_finished():
                request_stop(self.bridge.scheduler.controller, trial)
