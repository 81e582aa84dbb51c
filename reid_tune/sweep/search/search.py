"""The search: trial 0 is the spec itself, then Optuna suggests, ASHA stops, the log remembers."""

import shutil
from collections.abc import Mapping
from typing import Any

from reid_tune.events.log import Event
from reid_tune.spec.experiment import Experiment
from reid_tune.spec.load import with_parameters
from reid_tune.sweep.file import Sweep
from reid_tune.sweep.journal import Journal
from reid_tune.sweep.runs.source import Attempt, Recorder, fault
from reid_tune.sweep.search.asha import Asha
from reid_tune.sweep.search.study import Study
from reid_tune.sweep.state import trial_run

__all__ = ["Search"]

TRIAL0 = trial_run(0)
# Trials of a sweep whose checkpoints are kept, beside trial 0.
KEPT = 3


class Search:
    """The source of the search stage's trials.

    Optuna's study and ASHA's rungs are projections of the log: a new process replays the events through the same
    code. Every suggestion has a sampler of its own, seeded by (seed, trial number), so that a resumed sweep with one
    trial at a time suggests what an undisturbed one does.
    """

    def __init__(self, sweep: Sweep, journal: Journal, levels: tuple[int, ...]) -> None:
        self.sweep = sweep
        self.metric = sweep.file.metric
        self.recorder = Recorder(journal)
        self.journal = journal
        self.asha = Asha(levels, sweep.file.scheduler.reduction_factor)
        self.study = Study(sweep)
        self.tidied: set[str] = set()
        self._replay(journal.past)
        self._tidy()

    def next(self) -> Attempt | None:
        if self.recorder.waiting:
            run = self.recorder.waiting.pop(0)
        elif len(self.journal.state.trials) < self.sweep.file.budget.trials:
            run = self._suggest()
        else:
            return None
        return self.recorder.attempt(run, self._experiment(run))

    def done(self) -> bool:
        trials = self.journal.state.trials
        return len(trials) >= self.sweep.file.budget.trials and all(trial.state != "running" for trial in trials)

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        if reason := fault(metrics):
            self._end(run, "failed", reason)
            return False
        if not self.recorder.record(run, metrics):
            return True
        goes_on = self._learn(run, metrics["epoch"], metrics.get(self.metric))
        if metrics["epoch"] >= self._experiment(run).train.num_epochs:
            self._end(run, "finished")
            return False
        if not goes_on:
            self._end(run, "stopped", f"below rung {metrics['epoch']}")
        return goes_on

    def lost(self, run: str, reason: str) -> None:
        if self.recorder.lost(run, reason):
            self.study.tell(run, self.journal.state.runs[run].state, None, {})

    def _suggest(self) -> str:
        number = len(self.journal.state.trials)
        run = trial_run(number)
        parameters = {} if number == 0 else self.study.ask(run, number)
        self.journal.emit("suggested", run=run, parameters=parameters)
        return run

    def _learn(self, run: str, epoch: int, value: float | None) -> bool:
        if value is None:
            return True
        goes_on = self.asha.goes_on(epoch, value)
        return goes_on or run == TRIAL0

    def _end(self, run: str, state: str, reason: str = "") -> None:
        self.recorder.end(run, state, reason)
        self._tell(run)
        self._tidy()

    def _tidy(self) -> None:
        """Remove the checkpoints of ended trials, apart from trial 0's and those of the best."""
        best = {trial.name for trial in self.journal.state.finished()[:KEPT]} | {TRIAL0}
        for trial in self.journal.state.trials:
            if trial.state != "running" and trial.name not in best | self.tidied:
                self.tidied.add(trial.name)
                for folder in (self.journal.folder / trial.name).glob("attempt-*"):
                    shutil.rmtree(folder, ignore_errors=True)

    def _tell(self, run: str) -> None:
        trial = self.journal.state.runs[run]
        values = {epoch: m[self.metric] for epoch, m in trial.epochs.items() if self.metric in m}
        self.study.tell(run, trial.state, trial.last(self.metric), values)

    def _experiment(self, run: str) -> Experiment:
        return with_parameters(self.sweep.experiment, self.journal.state.runs[run].parameters, run)

    def _replay(self, events: list[Event]) -> None:
        cut = {}
        for event in events:
            run = event.get("run", "")
            if not run.startswith("trials/"):
                continue
            if event["kind"] == "suggested" and run != TRIAL0:
                self.study.remember(run, event["parameters"])
            elif event["kind"] == "report":
                cut[run] = not self._learn(run, event["epoch"], event["metrics"].get(self.metric))
            elif event["kind"] == "ended":
                self._tell(run)
        self._finish_interrupted(cut)

    def _finish_interrupted(self, cut: Mapping[str, bool]) -> None:
        """End what had reported its last epoch when the driver died before it could say so."""
        for run in list(self.recorder.waiting):
            if not run.startswith("trials/"):
                continue
            trial = self.journal.state.runs[run]
            finished = trial.epoch >= self._experiment(run).train.num_epochs
            if finished or cut.get(run, False):
                self.recorder.waiting.remove(run)
                self._end(run, "finished" if finished else "stopped", "" if finished else f"below rung {trial.epoch}")
