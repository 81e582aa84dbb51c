"""The refit: winner and trial 0 once more, on all training identities."""

from collections.abc import Mapping
from typing import Any

from reid_tune.errors import FailedRun
from reid_tune.spec.experiment import Experiment
from reid_tune.spec.load import with_parameters
from reid_tune.sweep.file import Sweep
from reid_tune.sweep.journal import Journal
from reid_tune.sweep.runs.source import Attempt, Recorder, fault
from reid_tune.sweep.state import RunState

__all__ = ["Refit", "finalists", "refit_run"]


def refit_run(name: str) -> str:
    """The run of a finalist."""
    return f"refit/{name}"


def finalists(journal: Journal, metric: str) -> dict[str, RunState]:
    """The trials to refit by name: `winner`, and `trial0` where that is another one.

    Raises:
        FailedRun: no trial reached its last epoch.
    """
    full = journal.state.finished()
    if not full:
        reasons = sorted({trial.reason for trial in journal.state.trials if trial.reason})
        raise FailedRun(f"no trial of the search reached its last epoch: {'; '.join(reasons) or 'none was started'}.")
    found = {"winner": full[0]}
    if full[0].number != 0 and any(trial.number == 0 for trial in full):
        found["trial0"] = next(trial for trial in full if trial.number == 0)
    return found


class Refit:
    """The source of the refit stage's runs."""

    def __init__(self, sweep: Sweep, journal: Journal) -> None:
        self.sweep = sweep
        self.journal = journal
        self.recorder = Recorder(journal)
        self.todo = {refit_run(name): trial.parameters for name, trial in finalists(journal, sweep.file.metric).items()}
        for run in [run for run in self.recorder.waiting if run in self.todo]:
            if journal.state.runs[run].epoch >= self.experiment(run).train.num_epochs:
                self.recorder.waiting.remove(run)
                self.recorder.end(run, "finished")

    def experiment(self, run: str) -> Experiment:
        """The spec of a refit: no hold-out, so every training identity is learned."""
        return with_parameters(self.sweep.experiment, {**self.todo[run], "dataset.validation": "none"}, run)

    def next(self) -> Attempt | None:
        new = [run for run in self.todo if run not in self.journal.state.runs]
        waiting = [run for run in self.recorder.waiting if run in self.todo]
        if waiting:
            run = waiting[0]
            self.recorder.waiting.remove(run)
        elif new:
            run = new[0]
            self.journal.emit("suggested", run=run, parameters={**self.todo[run], "dataset.validation": "none"})
        else:
            return None
        return self.recorder.attempt(run, self.experiment(run))

    def done(self) -> bool:
        runs = self.journal.state.runs
        return all(run in runs and runs[run].state != "running" for run in self.todo)

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        if reason := fault(metrics):
            self.recorder.end(run, "failed", reason)
            return False
        if self.recorder.record(run, metrics) and metrics["epoch"] >= self.experiment(run).train.num_epochs:
            self.recorder.end(run, "finished")
            return False
        return True

    def lost(self, run: str, reason: str) -> None:
        self.recorder.lost(run, reason)
