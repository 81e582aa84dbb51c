"""The search: trial 0 is the spec itself, then given configurations, then Optuna's; ASHA stops, the log remembers."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.execution.failures import Failure
from reid_tune.execution.run_source import ONE_CPU, Attempt, ResourceRequest, RunRecorder
from reid_tune.journal.events import EndState, EpochReported, Event, RunEnded, RunSuggested
from reid_tune.journal.journal import Journal
from reid_tune.journal.requests import Request, pending_requests, remove_request
from reid_tune.journal.state import trial_run
from reid_tune.modeling.cost import model_cost
from reid_tune.search.asha import Asha
from reid_tune.search.budget import BudgetTracker
from reid_tune.search.study import Study
from reid_tune.search_space.load import SweepConfig

__all__ = ["TrialSource"]

TRIAL0 = trial_run(0)


class TrialSource:
    """The source of the search stage's trials.

    Optuna's study and ASHA's rungs are projections of the log: a new process replays the events through the same
    code. Every suggestion has a sampler of its own, seeded by (seed, trial number), so that a resumed sweep with one
    trial at a time suggests what an undisturbed one does.

    Args:
        levels: ASHA's rungs.
        budget_tracker: Knows when the budget is spent; without it only trials are counted.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        journal: Journal,
        levels: tuple[int, ...],
        resources: ResourceRequest = ONE_CPU,
        budget_tracker: BudgetTracker | None = None,
    ) -> None:
        self.sweep = sweep
        self.metric = sweep.file.metric
        self.recorder = RunRecorder(journal, resources)
        self.recorder.pending_runs = [run for run in self.recorder.pending_runs if run.startswith("trials/")]
        self.journal = journal
        self.budget_tracker = budget_tracker
        self.asha = Asha(levels, sweep.file.scheduler.reduction_factor)
        self.study = Study(sweep)
        self.given: list[dict[str, Any]] = journal.state.stages.get("preflight", {}).get("given", [])
        self.tidied: set[str] = set()
        self._experiment = cache(self._make_experiment)
        self._replay(journal.past)
        self._tidy()

    def next_attempt(self) -> Attempt | None:
        run = self.recorder.pending_runs.pop(0) if self.recorder.pending_runs else self._new()
        return self.recorder.start_attempt(run, self._experiment(run)) if run else None

    def is_done(self) -> bool:
        if any(trial.state == "running" for trial in self.journal.state.trials) or self._enqueued():
            return False
        return self.end_reason() is not None

    def end_reason(self) -> str | None:
        """Why no further trial is suggested; None while one is. Trial 0 always is."""
        trials = self.journal.state.trials
        if not trials:
            return None
        if len(trials) >= self.sweep.file.budget.trials:
            return "trials"
        return self.budget_tracker.next_trial_limit() if self.budget_tracker else None

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        if self.recorder.record_if_failed(run, metrics):
            self._ended(run)
            return False
        if not self.recorder.record_epoch(run, metrics):
            return True
        goes_on = self._learn(run, metrics["epoch"], metrics.get(self.metric))
        if metrics["epoch"] >= self._experiment(run).train.num_epochs:
            self._end(run, "finished")
            return False
        if not goes_on:
            self._end(run, "stopped", f"below rung {metrics['epoch']}")
        return goes_on

    def report_lost(self, run: str, failure: Failure) -> None:
        self.recorder.record_failure(run, failure)
        self._ended(run)

    def is_running(self, run: str) -> bool:
        return self.journal.state.runs[run].state == "running"

    def poll(self) -> None:
        """Stop what users have asked to stop, and what the budget does not reach for."""
        for request in pending_requests(self.journal.folder):
            if request.kind == "stop":
                self._stop(request.run, "by request")
                remove_request(request)
        if self.budget_tracker and (spent := self.budget_tracker.exceeded_limit()):
            for trial in self.journal.state.trials:
                self._stop(trial.name, f"budget.{spent} is spent")

    def _stop(self, run: str, reason: str) -> None:
        if run != TRIAL0 and run in self.journal.state.runs and self.is_running(run):
            if run in self.recorder.pending_runs:
                self.recorder.pending_runs.remove(run)
            self._end(run, "stopped", reason)

    def _enqueued(self) -> list[Request]:
        found = [request for request in pending_requests(self.journal.folder) if request.kind == "enqueue"]
        return [request for request in found if request.name not in self.journal.state.requests]

    def _new(self) -> str | None:
        """The next trial: the spec, what a user asks for now, what the file gives, what the sampler suggests."""
        number = len(self.journal.state.trials)
        run = trial_run(number)
        if number == 0:
            return self._begin(run, {}, "spec")
        for request in self._enqueued():
            self._begin(run, request.parameters or {}, "user", request=request.name)
            remove_request(request)
            return run
        if self.end_reason() is not None:
            return None
        origins = [trial.origin for trial in self.journal.state.trials]
        begun = len(origins) - sum(map(origins.count, ("spec", "user", "sampler")))
        if begun < len(self.given):
            return self._begin(run, **self.given[begun])
        return self._begin(run, self.study.ask(run, number), "sampler")

    def _begin(self, run: str, parameters: Mapping[str, Any], origin: str, request: str | None = None) -> str:
        if origin not in ("spec", "sampler"):
            self.study.add_trial(run, parameters)
        costs = {}
        if names := self.sweep.file.costs:
            every = model_cost(with_parameters(self.sweep.experiment, parameters, run))
            costs = {name: every[name] for name in names}
        self.journal.emit(
            RunSuggested(run=run, parameters=dict(parameters), origin=origin, costs=costs, request=request)
        )
        return run

    def _learn(self, run: str, epoch: int, value: float | None) -> bool:
        if value is None:
            return True
        return self.asha.should_continue(epoch, value, self._costs(run)) or run == TRIAL0

    def _costs(self, run: str) -> tuple[float, ...]:
        costs = self.journal.state.runs[run].costs
        return tuple(costs[name] for name in self.sweep.file.costs)

    def _end(self, run: str, state: EndState, reason: str = "") -> None:
        self.recorder.record_end(run, state, reason)
        self._ended(run)

    def _ended(self, run: str) -> None:
        if not self.is_running(run):
            self._tell(run)
            self._tidy()

    def _tidy(self) -> None:
        """Remove the checkpoints of ended trials, apart from trial 0's and those of the best."""
        best = {trial.name for trial in self.journal.state.finished()[: self.sweep.file.keep]} | {TRIAL0}
        for trial in self.journal.state.trials:
            if trial.state != "running" and trial.name not in best | self.tidied:
                self.tidied.add(trial.name)
                self.journal.files.discard(trial.name, attempts=True)

    def _tell(self, run: str) -> None:
        trial = self.journal.state.runs[run]
        values = {epoch: m[self.metric] for epoch, m in trial.epochs.items() if self.metric in m}
        last = trial.last(self.metric)
        self.study.tell(run, trial.state, last, values, costs=self._costs(run), failure=trial.failure)

    def _make_experiment(self, run: str) -> Experiment:
        return with_parameters(self.sweep.experiment, self.journal.state.runs[run].parameters, run)

    def _replay(self, events: list[Event]) -> None:
        cut = {}
        for event in events:
            if not isinstance(event, RunSuggested | EpochReported | RunEnded) or not event.run.startswith("trials/"):
                continue
            match event:
                case RunSuggested() if event.run != TRIAL0:
                    self.study.add_trial(event.run, event.parameters)
                case EpochReported():
                    cut[event.run] = not self._learn(event.run, event.epoch, event.metrics.get(self.metric))
                case RunEnded():
                    self._tell(event.run)
        self._finish_interrupted(cut)

    def _finish_interrupted(self, cut: Mapping[str, bool]) -> None:
        """End what had reported its last epoch when the driver died before it could say so."""
        for run in list(self.recorder.pending_runs):
            trial = self.journal.state.runs[run]
            finished = trial.epoch >= self._experiment(run).train.num_epochs
            if finished or cut.get(run, False):
                self.recorder.pending_runs.remove(run)
                self._end(run, "finished" if finished else "stopped", "" if finished else f"below rung {trial.epoch}")
