"""A source of runs that are fixed from the start, each trained to its last epoch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.config.load import with_parameters
from reid_tune.execution.failures import Failure
from reid_tune.execution.run_source import ONE_CPU, Attempt, ResourceRequest, RunRecorder
from reid_tune.journal.events import RunSuggested
from reid_tune.journal.journal import Journal
from reid_tune.search_space.load import SweepConfig

__all__ = ["FixedRuns", "features_file"]


def features_file(folder: Path, run: str) -> Path:
    """Path of the embeddings of a run's last validation.

    It is outside of the folders of the attempts, as an attempt may continue where another one ended.

    Args:
        folder: The sweep's folder.
        run: Name of the run.
    """
    return folder / run / "features.npz"


class FixedRuns:
    """A source of given runs.

    Args:
        sweep: The sweep.
        journal: Its event log and state.
        runs: Names of the runs, with the values of the spec that each one changes.
        resources: The resources of each run.
        keep_features: Keep the embeddings of the last validation, and no checkpoint.
        may_begin: Function that tells whether a run may begin. If one may not, it and all later ones are left out.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        journal: Journal,
        runs: Mapping[str, Mapping[str, Any]],
        resources: ResourceRequest = ONE_CPU,
        *,
        keep_features: bool = False,
        may_begin: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.sweep = sweep
        self.journal = journal
        self.runs = runs
        self.keep_features = keep_features
        self.may_begin = may_begin
        self._experiments: dict[str, Experiment] = {}
        self.recorder = RunRecorder(journal, resources)
        self.recorder.pending_runs = [run for run in self.recorder.pending_runs if run in runs]
        for run in list(self.recorder.pending_runs):
            # The driver died after the last epoch was reported, before it recorded the run's end.
            if journal.state.runs[run].epoch >= self._experiment(run).train.num_epochs:
                self._finish(run)

    def next_attempt(self) -> Attempt | None:
        if self.recorder.pending_runs:
            run = self.recorder.pending_runs.pop(0)
        else:
            new_runs = [run for run in self.runs if run not in self.journal.state.runs]
            if not new_runs:
                return None
            run = new_runs[0]
            if not self.may_begin(run):
                self.runs = {run: self.runs[run] for run in self.runs if run not in new_runs}
                return None
            self.journal.emit(RunSuggested(run=run, parameters=dict(self.runs[run])))
        features = features_file(self.journal.folder, run) if self.keep_features else None
        return self.recorder.start_attempt(run, self._experiment(run), features)

    def is_done(self) -> bool:
        return all(run in self.journal.state.runs and not self.is_running(run) for run in self.runs)

    def report_started(self, run: str) -> None:
        self.recorder.record_started(run)

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        if self.recorder.record_if_failed(run, metrics):
            return False
        if self.recorder.record_epoch(run, metrics) and metrics["epoch"] >= self._experiment(run).train.num_epochs:
            self._finish(run)
            return False
        return True

    def report_lost(self, run: str, failure: Failure) -> None:
        self.recorder.record_failure(run, failure)

    def poll(self) -> None:
        pass

    def is_running(self, run: str) -> bool:
        return self.journal.state.runs[run].state == "running"

    def _finish(self, run: str) -> None:
        self.recorder.record_end(run, "finished")
        if self.keep_features:
            self.journal.files.fetch(features_file(self.journal.folder, run))
            self.journal.files.discard(run, attempts=True)

    def _experiment(self, run: str) -> Experiment:
        if run not in self._experiments:
            self._experiments[run] = with_parameters(self.sweep.experiment, self.runs[run], run)
        return self._experiments[run]
