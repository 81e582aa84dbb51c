"""Where a run's numbers come from: code, libraries, machine, data and weights."""

import hashlib
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import reid_tune
from reid_tune.config.experiment import Experiment
from reid_tune.data.fingerprint import fingerprint
from reid_tune.errors import InputError
from reid_tune.files import write_atomic
from reid_tune.journal.state import RunState, SweepState
from reid_tune.storage.download_cache import ensure_local_file

__all__ = [
    "RUN_RECORD",
    "WorkerResources",
    "collect_environment",
    "worker_resources_of",
    "make_run_record",
    "write_run_record",
    "training_file_digests",
]

RUN_RECORD = "run.json"
PACKAGES = ("reid-tune", "torch", "torchvision", "timm", "ray", "optuna", "mlflow", "numpy")
_DATA, _WEIGHTS = "training data", "pretrained weights"


@dataclass(frozen=True)
class WorkerResources:
    """What a run had to compute with.

    Attributes:
        workers: Its processes.
        cpus: Of each worker: the threads of its arithmetic.
        gpus: Of each worker, below one a share.
        hidden: Whether the machine's GPUs, if it has any, were kept from it.
    """

    workers: int = 1
    cpus: int = 1
    gpus: float = 0
    hidden: bool = False


def collect_environment(experiment: Experiment) -> dict[str, Any]:
    """This machine and its software, and the files that a training of the spec reads.

    `data` has the fingerprint of the training folders, `weights` file and digest of the pretrained weights or None;
    `commit` is that of the source and `dirty` whether the source differs from it, both None where it is not in git.

    Raises:
        InputError: a training folder or the weights cannot be read.
    """
    commit, dirty = _commit(Path(reid_tune.__file__).parent)
    weights, digests = experiment.model.pretrained_model_path, training_file_digests(experiment)
    return {
        "packages": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "commit": commit,
        "dirty": dirty,
        "machine": {
            "host": platform.node(),
            "platform": platform.platform(),
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "gpus": _gpus(),
        },
        "data": {
            "folders": list(experiment.dataset.train_folders),
            "fingerprint": digests[_DATA],
        },
        "weights": {"file": weights, "sha256": digests[_WEIGHTS]} if weights else None,
    }


def training_file_digests(experiment: Experiment) -> dict[str, str]:
    """Digests of what a training of the spec reads, by what it is.

    Raises:
        InputError: it cannot be read.
    """
    weights = experiment.model.pretrained_model_path
    found = {_DATA: fingerprint(*experiment.dataset.train_folders)}
    return found | ({_WEIGHTS: _sha256(ensure_local_file(weights))} if weights else {})


def make_run_record(experiment: Experiment, environment: dict[str, Any], held: WorkerResources) -> dict[str, Any]:
    """What is kept of a run: its spec (without the key), seed and hold-out, and what it ran on."""
    dataset = experiment.dataset
    return {
        "seed": experiment.train.seed,
        "split": {
            "validation": dataset.validation,
            "seed": dataset.validation_seed,
            "fraction": dataset.validation_fraction,
        },
        "held": asdict(held),
        "environment": environment,
        "spec": experiment.parameters(),
    }


def write_run_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a run's record into its folder.

    Raises:
        InputError: the folder cannot be written.
    """
    write_atomic(folder / RUN_RECORD, json.dumps(record, indent=2) + "\n")


def worker_resources_of(state: SweepState, run: RunState, folder: Path) -> WorkerResources:
    """What a run had: by its record below the sweep's folder, else by the plan and the file of the sweep."""
    try:
        return WorkerResources(**json.loads((folder / run.name / RUN_RECORD).read_text())["held"])
    except (OSError, ValueError, LookupError, TypeError):
        resources = state.header.sweep.get("resources", {})
        workers = resources.get("refit_workers" if run.name.startswith("refit/") else "workers", 1)
        gpus = state.stages.get("preflight", {}).get("gpus_per_run", 0) / resources.get("workers", 1)
        return WorkerResources(workers, resources.get("cpus_per_worker", 1), gpus, hidden=not gpus)


def _sha256(path: Path) -> str:
    try:
        state = path.stat()
        return _file_sha256(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise InputError(f"cannot read model.pretrained_model_path = {path}: {error.strerror}.") from None


@cache
def _file_sha256(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(source: Path) -> tuple[str | None, bool | None]:
    """The commit of a folder and whether it differs; None where it is in no repository, or not followed by it."""
    if not _output("git", "-C", str(source), "ls-files", "--", "__init__.py"):
        return None, None
    commit = _output("git", "-C", str(source), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(source), "status", "--porcelain", "--", ".")
    return (commit, bool(changes)) if commit else (None, None)


def _cpu() -> str:
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


@cache
def _gpus() -> list[str]:
    # Not by torch, which would take memory of the first GPU for it.
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _output(*command: str) -> str:
    """What a command prints; nothing where there is no such command, or it fails."""
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, env=quiet).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
