"""The files of a run on the machine that trains it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.errors import InfrastructureError, ReidTuneError
from reid_tune.storage.object_store import is_url
from reid_tune.storage.retry import retry_while_unavailable
from reid_tune.storage.s3 import S3Store
from reid_tune.storage.temporary_folder import temporary_folder

__all__ = ["RunFiles", "require_shared_folders", "run_files"]


@dataclass(frozen=True)
class RunFiles:
    """Paths of a run's files on this machine.

    Attributes:
        folder: Folder of the attempt's checkpoints.
        log: File with the output of the run.
        resume: Checkpoint of an earlier attempt, None to start from the first epoch.
        features: File for the embeddings of the last validation, None to keep none.
    """

    folder: Path
    log: Path
    resume: Path | None
    features: Path | None

    def push(self) -> None:
        """Copy new and changed files to the sweep's files, where these are elsewhere."""


@dataclass(frozen=True)
class _Copied(RunFiles):
    """Files of a sweep at s3://: in a folder of this process, copied to the bucket when they have changed."""

    bucket: S3Store
    root: Path
    sent: dict[Path, int]

    def push(self) -> None:
        for path in (self.log, self.features, self.folder / LATEST):
            if path and path.is_file() and self.sent.get(path) != (time := path.stat().st_mtime_ns):
                _call_bucket(self.bucket.upload, path, str(path.relative_to(self.root)))
                self.sent[path] = time


@contextmanager
def run_files(config: dict[str, Any], rank: int = 0) -> Iterator[RunFiles]:
    """Yield the files of a run, and push them once more after the block.

    Args:
        config: Configuration of the run, see `make_trial_config`.
        rank: Rank of the worker; only the files of rank 0 are kept, and the output of the others.

    Raises:
        InfrastructureError: the bucket is unreachable or denies access, before or after the block.
    """
    resume, features = (Path(config[name]) if config[name] else None for name in ("resume", "features"))
    files = RunFiles(Path(config["folder"]), Path(config["log"]), resume, features)
    if not config["remote"]:
        yield files
        return
    bucket, sweep = S3Store(config["remote"]), Path(config["sweep"])
    with temporary_folder("reid-tune-run-") as root:
        names = {name: getattr(files, name).relative_to(sweep) for name in vars(files) if getattr(files, name)}
        if rank:
            names["log"] = names["log"].with_name(f"log-{rank}.txt")
        local_files = replace(files, **{name: root / path for name, path in names.items()})
        for path in filter(None, (local_files.log, local_files.resume)):
            _call_bucket(bucket.download, str(path.relative_to(root)), path)
        copied = _Copied(**vars(local_files), bucket=bucket, root=root, sent={})
        try:
            yield copied if rank == 0 else local_files
        finally:
            if rank == 0:
                copied.push()
            elif local_files.log.is_file() and local_files.log.stat().st_size:
                _call_bucket(bucket.upload, local_files.log, str(local_files.log.relative_to(root)))


def _call_bucket(action: Callable[..., object], *arguments: Any) -> None:
    """Call an action on the bucket; its errors are raised as errors of the node, not of the run."""
    from ray.util import get_node_ip_address

    try:
        retry_while_unavailable(partial(action, *arguments))
    except ReidTuneError as error:
        raise InfrastructureError(f"node {get_node_ip_address()}: {error}") from None


def require_shared_folders(scratch: str, *data: str) -> None:
    """Check that this node, which may have joined after the preflight, has the folders that all nodes share.

    Args:
        scratch: Folder, or address of a bucket, for Ray Train's own files.
        data: Folders with training images, or addresses of buckets.

    Raises:
        InfrastructureError: a folder is missing; the node would fail one run after the other.
    """
    from ray.util import get_node_ip_address

    from reid_tune.storage.download_cache import ensure_local_folder

    if missing := [folder for folder in (scratch, *data) if not is_url(folder) and not Path(folder).is_dir()]:
        raise InfrastructureError(f"node {get_node_ip_address()} has no {missing[0]}.")
    try:
        for folder in data:
            ensure_local_folder(folder)
    except ReidTuneError as error:
        raise InfrastructureError(f"node {get_node_ip_address()}: {error}") from None
