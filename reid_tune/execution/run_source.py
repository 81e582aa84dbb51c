"""What a stage runs: a source of runs that decides from their reports."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from reid_tune.config.experiment import Experiment
from reid_tune.errors import InfrastructureError
from reid_tune.execution.failures import Failure, failure_in, retries
from reid_tune.execution.gpu_share import CONTEXT
from reid_tune.journal.journal import Journal
from reid_tune.journal.provenance import Held, record, store

__all__ = ["ONE_CPU", "Attempt", "Holds", "Recorder", "Source"]


@dataclass(frozen=True)
class Holds:
    """CPUs and GPUs that a run's workers hold together; fewer than one GPU is a share of one.

    Attributes:
        more: What each worker takes of its node beside them, by Ray's names.
    """

    cpus: int = 1
    gpus: float = 0
    workers: int = 1
    more: tuple[tuple[str, float], ...] = ()

    @property
    def shared(self) -> bool:
        """Whether other runs may use the same GPU."""
        return 0 < self.gpus < 1

    @property
    def alone(self) -> "Holds":
        """The same with a whole GPU."""
        return replace(self, gpus=1) if self.shared else self

    @property
    def each(self) -> Held:
        """What each worker has."""
        return Held(self.workers, self.cpus // self.workers, self.gpus / self.workers, hidden=not self.gpus)


ONE_CPU = Holds()


@dataclass(frozen=True)
class Attempt:
    """One start of one run.

    Attributes:
        run: Name of the run.
        experiment: Its spec.
        folder: Where this attempt writes its checkpoints.
        resume: Checkpoint of an earlier attempt.
        holds: What it takes of the cluster.
        gpu_context: Bytes of a GPU that its process takes outside of PyTorch's allocator.
        features: Where the embeddings of its last validation go.
        sweep: The sweep's folder.
        remote: Address of the bucket with the sweep's files; empty where they are in that folder.
    """

    run: str
    experiment: Experiment
    folder: Path
    resume: Path | None
    holds: Holds = ONE_CPU
    features: Path | None = None
    sweep: Path = Path()
    remote: str = ""
    gpu_context: int = CONTEXT


class Source(Protocol):
    """Gives out runs and learns from their reports."""

    def next(self) -> Attempt | None:
        """The next run to start, None while there is none."""

    def done(self) -> bool:
        """Whether nothing is left to start or to wait for."""

    def report(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Take a report in; False ends the run."""

    def lost(self, run: str, failure: Failure) -> None:
        """The process of a run died, or is to be given up."""

    def poll(self) -> None:
        """Called about once a second; may end runs."""

    def alive(self, run: str) -> bool:
        """Whether the process of a run is still wanted."""


class Recorder:
    """What all sources share: numbering attempts, recording reports once, starting again where that helps."""

    def __init__(self, journal: Journal, holds: Holds = ONE_CPU) -> None:
        self.journal = journal
        self.holds = holds
        # Runs that an earlier driver had started.
        self.waiting = [name for name, run in journal.state.runs.items() if run.state == "running"]

    def attempt(self, run: str, experiment: Experiment, features: Path | None = None) -> Attempt:
        """Record and describe the next attempt of a run."""
        state = self.journal.state.runs[run]
        holds = self.holds.alone if "out_of_memory" in state.setbacks else self.holds
        number = state.attempts + 1
        folder = self.journal.folder / run
        store(folder, record(experiment, self.journal.state.environment, holds.each))
        self.journal.emit("attempt", run=run, attempt=number, cpus=holds.cpus, gpus=holds.gpus)
        files, place = self.journal.files, folder / f"attempt-{number}"
        files.clear(place)
        return Attempt(
            run,
            experiment,
            place,
            files.newest(run, number),
            holds,
            features,
            files.folder,
            files.remote,
            self._gpu_context(),
        )

    def _gpu_context(self) -> int:
        """As the probe has measured it; without one, or in the log of an earlier version, an assumption."""
        probe = self.journal.state.stages.get("preflight", {}).get("probe", {})
        return int(probe.get("gpu_context") or CONTEXT)

    def failed(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Whether a report is that of a failure; then it was recorded, see `setback`."""
        failure = failure_in(metrics)
        if failure is not None:
            self.setback(run, failure)
        return failure is not None

    def record(self, run: str, metrics: Mapping[str, Any]) -> bool:
        """Record an epoch's metrics, nodes and what it took of them; False where the log has the epoch already."""
        values = dict(metrics)
        epoch, nodes, usage = values.pop("epoch"), values.pop("nodes", []), values.pop("usage", {})
        if epoch in self.journal.state.runs[run].epochs:
            return False
        self.journal.emit("report", run=run, epoch=epoch, metrics=values, nodes=nodes, usage=usage)
        return True

    def end(self, run: str, state: str, reason: str = "", failure: str = "") -> None:
        """Record the end of a run."""
        epoch = self.journal.state.runs[run].epoch
        more = {key: text for key, text in (("reason", reason), ("failure", failure)) if text}
        self.journal.emit("ended", run=run, state=state, epoch=epoch, **more)

    def setback(self, run: str, failure: Failure) -> None:
        """A run failed: queue it again where that may help, else end it.

        Raises:
            InfrastructureError: it was not the run's fault; the sweep ends and can be resumed.
        """
        if failure.kind == "infrastructure":
            raise InfrastructureError(f"{run}: {failure.reason} Mend it and go on with --resume auto.")
        before = self.journal.state.runs[run].setbacks.count(failure.kind)
        if before < retries(failure.kind, self.holds.shared):
            self.journal.emit("setback", run=run, failure=failure.kind, reason=failure.reason)
            self.waiting.append(run)
        else:
            self.end(run, "failed", failure.reason, failure.kind)
