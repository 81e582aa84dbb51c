"""Sources of runs: what a stage trains, decided from the reports of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InfrastructureError
from reid_tune.execution.failures import Failure, failure_from_report, max_retries
from reid_tune.execution.gpu_memory import DEFAULT_CUDA_CONTEXT
from reid_tune.journal.events import (
    AttemptStarted,
    EndState,
    EpochReported,
    RunEnded,
    RunPaused,
    RunRetried,
    WorkerStarted,
)
from reid_tune.journal.journal import Journal
from reid_tune.journal.run_record import RunRecord, WorkerResources

__all__ = ["ONE_CPU", "Attempt", "ResourceRequest", "RunRecorder", "RunSource"]


@dataclass(frozen=True)
class ResourceRequest:
    """The resources that a run requests of Ray.

    Attributes:
        cpus: CPUs of all its workers together.
        gpus: GPUs of all its workers together; below 1 the share of one GPU.
        workers: Number of its workers.
        custom: Amounts of further resources of a node for each worker, by Ray's names.
    """

    cpus: int = 1
    gpus: float = 0
    workers: int = 1
    custom: tuple[tuple[str, float], ...] = ()

    @property
    def shares_gpu(self) -> bool:
        """Whether other runs may use the same GPU."""
        return 0 < self.gpus < 1

    def with_whole_gpu(self) -> "ResourceRequest":
        """Return the request with a whole GPU in place of a share."""
        return replace(self, gpus=1) if self.shares_gpu else self

    @property
    def per_worker(self) -> WorkerResources:
        """Resources of each worker."""
        return WorkerResources(self.workers, self.cpus // self.workers, self.gpus / self.workers, not self.gpus)


ONE_CPU = ResourceRequest()


@dataclass(frozen=True)
class Attempt:
    """One start of a run.

    Attributes:
        run: Name of the run.
        experiment: Its spec.
        folder: Folder for the checkpoints of this attempt.
        resume: Checkpoint of an earlier attempt, None to start from the first epoch.
        resources: The resources that it requests.
        features: File for the embeddings of its last validation, None to keep none.
        sweep_folder: The sweep's folder.
        remote: Address of the bucket with the sweep's files; empty where they are in that folder.
        gpu_context: Bytes of a GPU that its process uses outside of PyTorch's allocator.
        validate_at: Further epochs at which it validates.
    """

    run: str
    experiment: Experiment
    folder: Path
    resume: Path | None
    resources: ResourceRequest = ONE_CPU
    features: Path | None = None
    sweep_folder: Path = Path()
    remote: str = ""
    gpu_context: int = DEFAULT_CUDA_CONTEXT
    validate_at: tuple[int, ...] = ()


class RunSource(Protocol):
    """Decides which runs start, and learns from their reports."""

    def next_attempt(self) -> Attempt | None:
        """Return the next attempt to start, None while there is none."""

    def is_done(self) -> bool:
        """Whether nothing is left to start or to wait for."""

    def report_started(self, run: str) -> None:
        """Apply the start of a run's workers."""

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Apply a report of an epoch or of a failure; False ends the run."""

    def report_lost(self, run: str, failure: Failure) -> None:
        """Apply the loss of a run whose process died or is given up."""

    def poll(self) -> None:
        """Apply what has happened elsewhere, such as requests of users; called about once a second, may end runs."""

    def is_running(self, run: str) -> bool:
        """Whether a run has not ended: otherwise its process is stopped."""


class RunRecorder:
    """Records the runs of a source in the event log: numbers attempts, records each report once, retries failed runs.

    Args:
        journal: The event log and the state of the sweep.
        resources: The resources of each run.

    Attributes:
        pending_runs: Names of the runs that are to be started again; at first those that an earlier driver started.
    """

    def __init__(self, journal: Journal, resources: ResourceRequest = ONE_CPU) -> None:
        self.journal = journal
        self.resources = resources
        self.pending_runs = [name for name, run in journal.state.runs.items() if run.state == "running"]

    def start_attempt(
        self, run: str, experiment: Experiment, features: Path | None = None, validate_at: tuple[int, ...] = ()
    ) -> Attempt:
        """Record the next attempt of a run, and return it.

        Args:
            run: Name of the run.
            experiment: Its spec.
            features: File for the embeddings of its last validation, None to keep none.
            validate_at: Further epochs at which it validates.
        """
        state = self.journal.state.runs[run]
        resources = self.resources.with_whole_gpu() if "out_of_memory" in state.retries else self.resources
        number = state.attempts + 1
        folder = self.journal.folder / run
        RunRecord.of(experiment, self.journal.state.environment, resources.per_worker).write(folder)
        self.journal.emit(AttemptStarted(run=run, attempt=number, cpus=resources.cpus, gpus=resources.gpus))
        files, attempt_folder = self.journal.files, folder / f"attempt-{number}"
        files.clear(attempt_folder)
        return Attempt(
            run,
            experiment,
            folder=attempt_folder,
            resume=files.newest_checkpoint(run, number),
            resources=resources,
            features=features,
            sweep_folder=files.folder,
            remote=files.remote,
            gpu_context=self._gpu_context(),
            validate_at=validate_at,
        )

    def _gpu_context(self) -> int:
        """Bytes that CUDA uses outside of PyTorch's allocator, from the probe; the default where it measured none."""
        probe = self.journal.state.stages.get("preflight", {}).get("probe", {})
        return int(probe.get("gpu_context") or DEFAULT_CUDA_CONTEXT)

    def record_started(self, run: str) -> None:
        """Record that the workers of a run have started."""
        self.journal.emit(WorkerStarted(run=run))

    def record_if_failed(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Record the failure in a report, see `record_failure`, and return True; False where the report has none."""
        failure = failure_from_report(metrics)
        if failure is not None:
            self.record_failure(run, failure)
        return failure is not None

    def record_epoch(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Record an epoch's metrics, nodes and usage, and return True; False where the log has the epoch already."""
        values = dict(metrics)
        epoch, nodes, usage = values.pop("epoch"), values.pop("nodes", []), values.pop("usage", {})
        if epoch in self.journal.state.runs[run].epochs:
            return False
        self.journal.emit(EpochReported(run=run, epoch=epoch, metrics=values, nodes=nodes, usage=usage))
        return True

    def record_pause(self, run: str, reason: str, limit: str = "") -> None:
        """Record that a run stops and keeps its checkpoint; for `limit` see `RunPaused`."""
        self._drop_pending(run)
        epoch = self.journal.state.runs[run].epoch
        self.journal.emit(RunPaused(run=run, epoch=epoch, reason=reason, limit=limit))

    def record_end(self, run: str, state: EndState, reason: str = "", failure: str = "") -> None:
        """Record the end of a run."""
        self._drop_pending(run)
        epoch = self.journal.state.runs[run].epoch
        self.journal.emit(RunEnded(run=run, state=state, epoch=epoch, reason=reason, failure=failure))

    def _drop_pending(self, run: str) -> None:
        if run in self.pending_runs:
            self.pending_runs.remove(run)

    def record_failure(self, run: str, failure: Failure) -> None:
        """Record the failure of a run: retry the run where that may help, otherwise end it.

        Raises:
            InfrastructureError: the machine or the cluster failed, not the run; the sweep ends and can be resumed.
        """
        if failure.kind == "infrastructure":
            raise InfrastructureError(f"{run}: {failure.reason} Fix this, then continue with --resume auto.")
        retries = self.journal.state.runs[run].retries.count(failure.kind)
        if retries < max_retries(failure.kind, self.resources.shares_gpu):
            self.journal.emit(RunRetried(run=run, failure=failure.kind, reason=failure.reason))
            self.pending_runs.append(run)
        else:
            self.record_end(run, "failed", failure.reason, failure.kind)
