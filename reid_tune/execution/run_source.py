"""What a stage runs: a source of runs that decides from their reports."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InfrastructureError
from reid_tune.execution.failures import Failure, failure_from_report, max_retries
from reid_tune.execution.gpu_memory import DEFAULT_CUDA_CONTEXT
from reid_tune.journal.events import AttemptStarted, EndState, EpochReported, RunEnded, RunRetried
from reid_tune.journal.journal import Journal
from reid_tune.journal.provenance import WorkerResources, make_run_record, write_run_record

__all__ = ["ONE_CPU", "Attempt", "ResourceRequest", "RunRecorder", "RunSource"]


@dataclass(frozen=True)
class ResourceRequest:
    """CPUs and GPUs that a run's workers hold together; fewer than one GPU is a share of one.

    Attributes:
        custom: What each worker takes of its node beside them, by Ray's names.
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
        """The same with a whole GPU."""
        return replace(self, gpus=1) if self.shares_gpu else self

    @property
    def per_worker(self) -> WorkerResources:
        """What each worker has."""
        return WorkerResources(self.workers, self.cpus // self.workers, self.gpus / self.workers, hidden=not self.gpus)


ONE_CPU = ResourceRequest()


@dataclass(frozen=True)
class Attempt:
    """One start of one run.

    Attributes:
        run: Name of the run.
        experiment: Its spec.
        folder: Where this attempt writes its checkpoints.
        resume: Checkpoint of an earlier attempt.
        resources: What it takes of the cluster.
        gpu_context: Bytes of a GPU that its process takes outside of PyTorch's allocator.
        features: Where the embeddings of its last validation go.
        sweep: The sweep's folder.
        remote: Address of the bucket with the sweep's files; empty where they are in that folder.
    """

    run: str
    experiment: Experiment
    folder: Path
    resume: Path | None
    resources: ResourceRequest = ONE_CPU
    features: Path | None = None
    sweep: Path = Path()
    remote: str = ""
    gpu_context: int = DEFAULT_CUDA_CONTEXT


class RunSource(Protocol):
    """Gives out runs and learns from their reports."""

    def next_attempt(self) -> Attempt | None:
        """The next run to start, None while there is none."""

    def is_done(self) -> bool:
        """Whether nothing is left to start or to wait for."""

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Take a report in; False ends the run."""

    def report_lost(self, run: str, failure: Failure) -> None:
        """The process of a run died, or is to be given up."""

    def poll(self) -> None:
        """Called about once a second; may end runs."""

    def is_running(self, run: str) -> bool:
        """Whether the process of a run is still wanted."""


class RunRecorder:
    """What all sources share: numbering attempts, recording reports once, starting again where that helps."""

    def __init__(self, journal: Journal, resources: ResourceRequest = ONE_CPU) -> None:
        self.journal = journal
        self.resources = resources
        # Runs that an earlier driver had started.
        self.pending_runs = [name for name, run in journal.state.runs.items() if run.state == "running"]

    def start_attempt(self, run: str, experiment: Experiment, features: Path | None = None) -> Attempt:
        """Record and describe the next attempt of a run."""
        state = self.journal.state.runs[run]
        resources = self.resources.with_whole_gpu() if "out_of_memory" in state.retries else self.resources
        number = state.attempts + 1
        folder = self.journal.folder / run
        write_run_record(folder, make_run_record(experiment, self.journal.state.environment, resources.per_worker))
        self.journal.emit(AttemptStarted(run=run, attempt=number, cpus=resources.cpus, gpus=resources.gpus))
        files, place = self.journal.files, folder / f"attempt-{number}"
        files.clear(place)
        return Attempt(
            run,
            experiment,
            place,
            files.newest_checkpoint(run, number),
            resources,
            features,
            files.folder,
            files.remote,
            self._gpu_context(),
        )

    def _gpu_context(self) -> int:
        """As the probe has measured it; without one, or in the log of an earlier version, an assumption."""
        probe = self.journal.state.stages.get("preflight", {}).get("probe", {})
        return int(probe.get("gpu_context") or DEFAULT_CUDA_CONTEXT)

    def record_if_failed(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Whether a report is that of a failure; then it was recorded, see `record_failure`."""
        failure = failure_from_report(metrics)
        if failure is not None:
            self.record_failure(run, failure)
        return failure is not None

    def record_epoch(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Record an epoch's metrics, nodes and what it took of them; False where the log has the epoch already."""
        values = dict(metrics)
        epoch, nodes, usage = values.pop("epoch"), values.pop("nodes", []), values.pop("usage", {})
        if epoch in self.journal.state.runs[run].epochs:
            return False
        self.journal.emit(EpochReported(run=run, epoch=epoch, metrics=values, nodes=nodes, usage=usage))
        return True

    def record_end(self, run: str, state: EndState, reason: str = "", failure: str = "") -> None:
        """Record the end of a run."""
        epoch = self.journal.state.runs[run].epoch
        self.journal.emit(RunEnded(run=run, state=state, epoch=epoch, reason=reason, failure=failure))

    def record_failure(self, run: str, failure: Failure) -> None:
        """A run failed: queue it again where that may help, else end it.

        Raises:
            InfrastructureError: it was not the run's fault; the sweep ends and can be resumed.
        """
        if failure.kind == "infrastructure":
            raise InfrastructureError(f"{run}: {failure.reason} Mend it and go on with --resume auto.")
        before = self.journal.state.runs[run].retries.count(failure.kind)
        if before < max_retries(failure.kind, self.resources.shares_gpu):
            self.journal.emit(RunRetried(run=run, failure=failure.kind, reason=failure.reason))
            self.pending_runs.append(run)
        else:
            self.record_end(run, "failed", failure.reason, failure.kind)
