"""The files of one run where it is trained."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.errors import InfrastructureError, ReidTuneError
from reid_tune.storage.retry import retry_while_unavailable
from reid_tune.storage.s3 import S3Store, is_url

__all__ = ["RunFiles", "require_shared_folders", "run_files"]

_PREFIX = "reid-tune-run-"


@dataclass(frozen=True)
class RunFiles:
    """Paths of this machine.

    Attributes:
        folder: Of the attempt's checkpoints.
        log: What the run prints.
        resume: Checkpoint of an earlier attempt.
        features: Where the embeddings of the last validation go.
    """

    folder: Path
    log: Path
    resume: Path | None
    features: Path | None

    def push(self) -> None:
        """Have what was written be where the sweep's files are."""


@dataclass(frozen=True)
class _Copied(RunFiles):
    """Of a sweep at s3://: files below a folder of this process, copied to the bucket when they have changed."""

    bucket: S3Store
    root: Path
    sent: dict[Path, int]

    def push(self) -> None:
        for path in (self.log, self.features, self.folder / LATEST):
            if path and path.is_file() and self.sent.get(path) != (time := path.stat().st_mtime_ns):
                _reach(self.bucket.upload, path, str(path.relative_to(self.root)))
                self.sent[path] = time


@contextmanager
def run_files(config: dict[str, Any], rank: int = 0) -> Iterator[RunFiles]:
    """The files of a run that `make_trial_config` describes, for the block; pushed once more behind it.

    Args:
        rank: Of the worker; only the first one's files are kept, and what others have to say.

    Raises:
        InfrastructureError: the bucket stays away, or this node has no access; behind the block, too.
    """
    resume, features = (Path(config[name]) if config[name] else None for name in ("resume", "features"))
    files = RunFiles(Path(config["folder"]), Path(config["log"]), resume, features)
    if not config["remote"]:
        yield files
        return
    bucket, sweep = S3Store(config["remote"]), Path(config["sweep"])
    _remove_leftovers()
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as root:
        names = {name: getattr(files, name).relative_to(sweep) for name in vars(files) if getattr(files, name)}
        if rank:
            names["log"] = names["log"].with_name(f"log-{rank}.txt")
        here = replace(files, **{name: Path(root, path) for name, path in names.items()})
        for path in filter(None, (here.log, here.resume)):
            _reach(bucket.download, str(path.relative_to(root)), path)
        copied = _Copied(**vars(here), bucket=bucket, root=Path(root), sent={})
        try:
            yield copied if rank == 0 else here
        finally:
            if rank == 0:
                copied.push()
            elif here.log.is_file() and here.log.stat().st_size:
                _reach(bucket.upload, here.log, str(here.log.relative_to(root)))


def _reach(action: Callable[..., object], *arguments: Any) -> None:
    """Do something with the bucket; what is wrong is the fault of the node, not of the run."""
    from ray.util import get_node_ip_address

    try:
        retry_while_unavailable(partial(action, *arguments))
    except ReidTuneError as error:
        raise InfrastructureError(f"node {get_node_ip_address()}: {error}") from None


def _remove_leftovers() -> None:
    """Delete the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = re.match(r"\d+", folder.name.removeprefix(_PREFIX))
        if pid and not Path(f"/proc/{pid[0]}").exists():
            with suppress(OSError):
                shutil.rmtree(folder)


def require_shared_folders(scratch: str, *data: str) -> None:
    """Refuse to run on a node that came later than the preflight and lacks what all others have.

    Raises:
        InfrastructureError: it would fail one run after the other.
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
