"""Search: train the spec and suggested configurations, end weak trials early, keep the best checkpoints."""

import math
from collections.abc import Mapping
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.execution.failures import Failure
from reid_tune.execution.run_source import ONE_CPU, Attempt, ResourceRequest, RunRecorder
from reid_tune.journal.events import EndState, EpochReported, Event, RunEnded, RunPaused, RunSuggested
from reid_tune.journal.journal import Journal
from reid_tune.journal.requests import pending_requests, remove_request
from reid_tune.journal.state import trial_run
from reid_tune.search.asha import Asha, Rungs
from reid_tune.search.budget import BudgetTracker
from reid_tune.search.paused_trials import PausedTrials
from reid_tune.search.promotion import Promotion
from reid_tune.search.pruning import PruningRule
from reid_tune.search.study import Study
from reid_tune.search.trial_queue import TrialQueue
from reid_tune.search_space.load import SweepConfig

__all__ = ["TrialSource"]

_TRIAL0 = trial_run(0)


class TrialSource:
    """Run source of the search.

    Optuna's study and ASHA's rungs are derived from the event log: a new process replays the events through the same
    code. Each suggestion has a separate sampler, seeded by (seed, trial number), so that a resumed sweep with one trial
    at a time suggests the same configurations as an undisturbed one.

    Args:
        sweep: Sweep of the search.
        journal: Event log.
        rungs: ASHA's rungs.
        resources: Resource request of each trial.
        budget_tracker: Tracker of the sweep's budget, None to limit only the number of trials.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        journal: Journal,
        rungs: Rungs,
        resources: ResourceRequest = ONE_CPU,
        budget_tracker: BudgetTracker | None = None,
    ) -> None:
        self.sweep = sweep
        self.metric = sweep.file.metric
        self.journal = journal
        self.recorder = RunRecorder(journal, resources)
        self.recorder.pending_runs = [run for run in self.recorder.pending_runs if run.startswith("trials/")]
        self.rungs = rungs
        self.study = Study(sweep, rungs, journal.state.stages.get("preflight", {}).get("learned", []))
        self.queue = TrialQueue(sweep, journal, self.study, budget_tracker)
        scheduler, target = sweep.file.scheduler, sweep.file.target
        self.asha = (Promotion if scheduler.mode == "promote" else Asha)(rungs.levels, scheduler.reduction_factor)
        self.pruning = PruningRule(self.asha, budget_tracker, target)
        self.paused = PausedTrials(journal.state, self.asha, sweep.file.max_paused, budget_tracker, target)
        self.checkpoints = _CheckpointRetention(journal, sweep.file.keep)
        self._experiments: dict[str, Experiment] = {}
        self._replay(journal.earlier_events)
        self._end_surplus()
        self.checkpoints.remove_unneeded()

    def next_attempt(self) -> Attempt | None:
        if self.recorder.pending_runs:
            run = self.recorder.pending_runs.pop(0)
        elif not self.queue.enqueued() and (paused := self.paused.next_run()):
            run = paused
        else:
            trial = self.queue.next_trial()
            if trial is None:
                return None
            run = trial.run
            self._experiments[run] = trial.experiment
        rungs = self.rungs.epochs(self._values(run))
        return self.recorder.start_attempt(run, self._experiment(run), validate_at=rungs)

    def is_done(self) -> bool:
        if any(trial.state == "running" for trial in self.journal.state.trials) or self.queue.enqueued():
            return False
        return self.paused.next_run() is None and self.end_reason() is not None

    def end_reason(self) -> str | None:
        """Return why the search starts no trial: the key of `budget` that forbids to continue a paused one.

        Otherwise see `TrialQueue.end_reason`.
        """
        return self.paused.forbidding_limit() or self.queue.end_reason()

    def report_started(self, run: str) -> None:
        self.recorder.record_started(run)

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        if self.recorder.record_if_failed(run, metrics):
            self._update_if_ended(run)
            return False
        if not self.recorder.record_epoch(run, metrics):
            return True
        epoch = metrics["epoch"]
        should_continue = self._apply_score(run, epoch, metrics.get(self.metric))
        if epoch >= self._experiment(run).train.num_epochs:
            self._end(run, "finished")
            return False
        if not should_continue:
            self._leave_at_rung(run, epoch)
        return should_continue

    def report_lost(self, run: str, failure: Failure) -> None:
        self.recorder.record_failure(run, failure)
        self._update_if_ended(run)

    def is_running(self, run: str) -> bool:
        return self.journal.state.runs[run].state == "running"

    def poll(self) -> None:
        """Stop the trials that users ask to stop, all when the target is reached; pause all over the budget."""
        for request in pending_requests(self.journal.folder):
            if request.kind == "stop":
                if request.run != _TRIAL0 and self._state(request.run) in ("running", "paused"):
                    self._end(request.run, "stopped", "by request")
                remove_request(request)
        state = self.journal.state
        for run, reason in list(self.pruning.runs_after_target(state)):
            if self.is_running(run):
                self._end(run, "stopped", reason)
        for run, limit in list(self.pruning.runs_over_budget(state)):
            if self.is_running(run):
                self._pause(run, f"budget.{limit} is spent", limit)

    def _leave_at_rung(self, run: str, epoch: int) -> None:
        """Pause a trial that is not among the best of its rung, or stop it where ASHA promotes none."""
        if isinstance(self.asha, Promotion):
            self._pause(run, f"below rung {epoch}")
        else:
            self._end(run, "stopped", f"below rung {epoch}")

    def _pause(self, run: str, reason: str, limit: str = "") -> None:
        self.recorder.record_pause(run, reason, limit)
        self._end_surplus()
        self.checkpoints.remove_unneeded()

    def _end_surplus(self) -> None:
        """End the paused trials of which no more checkpoints may be kept."""
        for trial in self.paused.surplus():
            self._end(trial.name, "stopped", trial.reason)

    def _end(self, run: str, state: EndState, reason: str = "") -> None:
        self.recorder.record_end(run, state, reason)
        self._update_if_ended(run)

    def _state(self, run: str) -> str:
        """Return the state of a run, empty for one that does not exist."""
        return self.journal.state.runs[run].state if run in self.journal.state.runs else ""

    def _update_if_ended(self, run: str) -> None:
        if not self.is_running(run):
            self._experiments.pop(run, None)
            self._tell_study(run)
            self.checkpoints.remove_unneeded()

    def _apply_score(self, run: str, epoch: int, value: float | None) -> bool:
        """Return whether a trial continues after its score at an epoch."""
        if value is not None and math.isfinite(value):
            self.study.report(run, epoch, value)
        passed = epoch - self.rungs.delay(self._values(run))
        return self.pruning.should_continue(run, passed, value, self._costs(run))

    def _tell_study(self, run: str) -> None:
        trial = self.journal.state.runs[run]
        values = {epoch: metrics[self.metric] for epoch, metrics in trial.epochs.items() if self.metric in metrics}
        last = trial.last(self.metric)
        self.study.tell(run, trial.state, last, values, costs=self._costs(run), failure=trial.failure)

    def _costs(self, run: str) -> tuple[float, ...]:
        costs = self.journal.state.runs[run].costs
        return tuple(costs[name] for name in self.sweep.file.costs)

    def _values(self, run: str) -> dict[str, Any]:
        """Return the values of a trial's spec by dotted key."""
        return {**self.sweep.space.base, **self.journal.state.runs[run].parameters}

    def _experiment(self, run: str) -> Experiment:
        if run not in self._experiments:
            parameters = self.journal.state.runs[run].parameters
            self._experiments[run] = with_parameters(self.sweep.experiment, parameters, run)
        return self._experiments[run]

    def _replay(self, events: list[Event]) -> None:
        pruned: dict[str, bool] = {}
        for event in events:
            if not isinstance(event, RunSuggested | EpochReported | RunPaused | RunEnded):
                continue
            if not event.run.startswith("trials/"):
                continue
            match event:
                case RunSuggested():
                    self.study.add_trial(event.run, event.parameters)
                    self.study.record_costs(event.run, [event.costs[name] for name in self.sweep.file.costs])
                case EpochReported():
                    score = event.metrics.get(self.metric)
                    pruned[event.run] = not self._apply_score(event.run, event.epoch, score)
                case RunPaused():
                    pruned[event.run] = False
                case RunEnded():
                    self._tell_study(event.run)
        self._end_interrupted(pruned)

    def _end_interrupted(self, pruned: Mapping[str, bool]) -> None:
        """End the trials whose last report was recorded, but not their end, when the earlier driver died."""
        for run in list(self.recorder.pending_runs):
            trial = self.journal.state.runs[run]
            if trial.epoch >= self._experiment(run).train.num_epochs:
                self._end(run, "finished")
            elif pruned.get(run, False):
                self._leave_at_rung(run, trial.epoch)


class _CheckpointRetention:
    """Keeps the newest checkpoints of running and paused trials, of trial 0 and of the best `keep` trials."""

    def __init__(self, journal: Journal, keep: int) -> None:
        self.journal = journal
        self.keep = keep
        self._removed: set[str] = set()
        # By trial the number of the last attempt whose predecessors were removed. The first has none.
        self._last_attempts: dict[str, int] = {}

    def remove_unneeded(self) -> None:
        """Remove the checkpoints of the other trials, and those of earlier attempts of trials that do not run."""
        kept = {trial.name for trial in self.journal.state.finished()[: self.keep]} | {_TRIAL0}
        for trial in self.journal.state.trials:
            if trial.state == "running" or trial.name in self._removed:
                continue
            if trial.state != "paused" and trial.name not in kept:
                self._removed.add(trial.name)
                self.journal.files.discard(trial.name, attempts=True)
            elif trial.attempts > self._last_attempts.get(trial.name, 1):
                self._last_attempts[trial.name] = trial.attempts
                self.journal.files.discard_superseded(trial.name, trial.attempts)
