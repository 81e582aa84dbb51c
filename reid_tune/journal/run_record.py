"""The record of a run: its spec, its data split, and what computed it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reid_tune.config.experiment import Experiment
from reid_tune.files import write_atomic
from reid_tune.journal.state import RunState, SweepState

__all__ = ["RUN_RECORD", "RunRecord", "WorkerResources", "worker_resources_of"]

RUN_RECORD = "run.json"  # in the folder of a run


@dataclass(frozen=True)
class WorkerResources:
    """Resources of the workers of a run.

    Attributes:
        workers: Number of processes.
        cpus: CPUs of each worker, which are the threads of its arithmetic.
        gpus: GPUs of each worker; below 1 a share of one.
        gpus_hidden: Whether the run could not see GPUs that its machine may have.
    """

    workers: int = 1
    cpus: int = 1
    gpus: float = 0
    gpus_hidden: bool = False


@dataclass(frozen=True)
class RunRecord:
    """What is needed to repeat a run.

    Attributes:
        seed: Seed of the training.
        split: Validation split: `validation` (its kind), `seed` and `fraction` of identities.
        resources: Resources of its workers.
        environment: Code, libraries, machine, data and weights, see `collect_environment`.
        spec: The experiment spec by dotted keys, without the encryption key.
    """

    seed: int
    split: dict[str, Any]
    resources: WorkerResources
    environment: dict[str, Any]
    spec: dict[str, Any]

    @classmethod
    def of(cls, experiment: Experiment, environment: dict[str, Any], resources: WorkerResources) -> "RunRecord":
        """Return the record of a run with this spec."""
        dataset = experiment.dataset
        split = {
            "validation": dataset.validation,
            "seed": dataset.validation_seed,
            "fraction": dataset.validation_fraction,
        }
        return cls(experiment.train.seed, split, resources, environment, experiment.parameters())

    def write(self, folder: Path) -> None:
        """Write the record into the run's folder.

        Raises:
            InputError: The folder cannot be written.
        """
        write_atomic(folder / RUN_RECORD, json.dumps(asdict(self), indent=2) + "\n")


def worker_resources_of(state: SweepState, run: RunState, folder: Path) -> WorkerResources:
    """Return the resources of a run by its record; without a record by the plan and the search-space file.

    Args:
        folder: Folder of the sweep.
    """
    try:
        return WorkerResources(**json.loads((folder / run.name / RUN_RECORD).read_text())["resources"])
    except (OSError, ValueError, LookupError, TypeError):
        resources = state.header.sweep.get("resources", {})
        workers = resources.get("refit_workers" if run.name.startswith("refit/") else "workers", 1)
        gpus = state.stages.get("preflight", {}).get("gpus_per_run", 0) / resources.get("workers", 1)
        return WorkerResources(workers, resources.get("cpus_per_worker", 1), gpus, gpus_hidden=not gpus)
