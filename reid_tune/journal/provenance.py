"""Provenance of a run's numbers: code, libraries, machine, data and weights."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import reid_tune
from reid_tune.config.experiment import Experiment
from reid_tune.data.fingerprint import fingerprint
from reid_tune.errors import InputError
from reid_tune.storage.download_cache import ensure_local_file

__all__ = ["collect_environment", "processor_name", "training_file_digests", "weights_digest"]

PACKAGES = ("reid-tune", "torch", "torchvision", "timm", "ray", "optuna", "mlflow", "numpy")
_DATA, _WEIGHTS = "training data", "pretrained weights"


def collect_environment(experiment: Experiment) -> dict[str, Any]:
    """Return a description of this machine, its software, and the files that a training of the spec reads.

    `data` has the folders and the fingerprint of the training images, `weights` the file and the digest of the
    pretrained weights, or None. `commit` is the commit of the source, and `dirty` says whether the source differs from
    it. Both are None if the source is not in a git repository.

    Raises:
        InputError: A training folder or the weights cannot be read.
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
            "cpu": processor_name(),
            "cores": len(os.sched_getaffinity(0)),
            "gpus": _gpus(),
        },
        "data": {
            "folders": list(experiment.dataset.train_folders),
            "fingerprint": digests[_DATA],
        },
        "weights": {"file": weights, "sha256": digests[_WEIGHTS]} if weights else None,
    }


def training_file_digests(experiment: Experiment, weights: Iterable[str] = ()) -> dict[str, str]:
    """Return the digests of what a training of the spec reads: `training data` and `pretrained weights`, if any.

    Args:
        experiment: The spec.
        weights: Further files of pretrained weights, which add `pretrained weights FILE`.

    Raises:
        InputError: A folder or the weights cannot be read.
    """
    digests = {_DATA: fingerprint(*experiment.dataset.train_folders)}
    if experiment.model.pretrained_model_path:
        digests[_WEIGHTS] = weights_digest(experiment.model.pretrained_model_path)
    return digests | {f"{_WEIGHTS} {file}": weights_digest(file) for file in weights}


def weights_digest(file: str) -> str:
    """Return the SHA-256 digest of a file of pretrained weights.

    Raises:
        InputError: The file cannot be read.
    """
    path = ensure_local_file(file)
    try:
        stat = path.stat()
        return _file_sha256(path, stat.st_size, stat.st_mtime_ns)
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
    """Return the commit of a folder and whether the folder differs from it; None if no repository tracks it."""
    if not _output("git", "-C", str(source), "ls-files", "--", "__init__.py"):
        return None, None
    commit = _output("git", "-C", str(source), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(source), "status", "--porcelain", "--", ".")
    return (commit, bool(changes)) if commit else (None, None)


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor; that of its architecture where the system does not name it."""
    lines = _text(cpuinfo).splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@cache
def _gpus() -> list[str]:
    # torch would allocate memory of the first GPU for this.
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _output(*command: str) -> str:
    """Return what a command prints; nothing if the command does not exist or fails."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
