"""The files of a sweep as its driver uses them."""

import re
import shutil
from pathlib import Path

from reid_tune.checkpoints.filenames import newest_checkpoint_name
from reid_tune.journal.lease import Lease
from reid_tune.storage.object_store import LocalStore, ObjectStore

__all__ = ["SweepStore", "attempt_folder"]

_ATTEMPT = re.compile(r"(.*/attempt-\d+)/.*")


def attempt_folder(name: str) -> str:
    """The attempt's folder of a file of a sweep; empty if the file belongs to no attempt."""
    match = _ATTEMPT.fullmatch(name)
    return match[1] if match else ""


class SweepStore:
    """A sweep in a folder that all machines see; `S3SweepStore` is one in a bucket.

    Attributes:
        folder: The folder in which the driver writes.
        objects: The sweep's files, for all machines; the lease is one of them.
        lock: See `Lease`.
        remote: Address of the bucket; empty for a shared folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: ObjectStore = LocalStore(folder)
        self.lock = self.remote = ""

    def begin(self, lease: Lease) -> None:
        """Start to synchronise: this process is the driver from now on."""

    def end(self) -> None:
        """Synchronise for the last time: this process is not the driver any more."""

    def require_synced(self) -> None:
        """Raise InfrastructureError if files that the driver has written have not arrived for too long."""

    def flush(self) -> None:
        """Wait until all written files have arrived; InfrastructureError if they cannot."""

    def fetch(self, path: Path) -> None:
        """Copy a file that a run has written into the folder."""

    def newest_checkpoint(self, run: str, before: int | None = None) -> Path | None:
        """The latest checkpoint of a run's newest attempt that has one.

        Args:
            before: Consider only attempts with a smaller number.
        """
        name = newest_checkpoint_name(self.objects.objects(run), before)
        return self.folder / name if name else None

    def clear(self, path: Path) -> None:
        """Delete a folder at once: a run that was dropped and starts again may have left checkpoints there."""
        shutil.rmtree(path, ignore_errors=True)

    def discard(self, run: str, attempts: bool = False) -> None:
        """Delete all files of a run, or only its attempts."""
        for folder in (self.folder / run).glob("attempt-*") if attempts else [self.folder / run]:
            shutil.rmtree(folder, ignore_errors=True)
