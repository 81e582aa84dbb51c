"""Files of a sweep for its driver."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from reid_tune.checkpoints.filenames import newest_checkpoint, newest_checkpoint_name
from reid_tune.journal.lease import Lease
from reid_tune.storage.object_store import LocalStore, ObjectStore

__all__ = ["SweepStore", "attempt_folder", "superseded_attempts"]

_ATTEMPT = re.compile(r"(.*/attempt-(\d+))/.*")


def attempt_folder(name: str) -> str:
    """Return the attempt's folder of a file of a sweep; empty if the file does not belong to an attempt."""
    match = _ATTEMPT.fullmatch(name)
    return match[1] if match else ""


def superseded_attempts(names: Iterable[str], last: int) -> list[str]:
    """Return the folders of a run's attempts before the newest one that has a checkpoint.

    Args:
        names: Names of the run's files.
        last: Number of an attempt; later ones are not considered.
    """
    matches = [match for match in map(_ATTEMPT.fullmatch, names) if match]
    newest = newest_checkpoint_name([match[0] for match in matches], last + 1)
    first_kept = next((int(match[2]) for match in matches if match[0] == newest), 0)
    return sorted({match[1] for match in matches if int(match[2]) < first_kept})


class SweepStore:
    """Sweep in a folder that all machines share; `S3SweepStore` is one in a bucket.

    Attributes:
        folder: Folder in which the driver writes.
        objects: The sweep's files for all machines, among them the lease.
        lock: See `Lease`.
        remote: Address of the bucket; empty for a shared folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: ObjectStore = LocalStore(folder)
        self.lock = self.remote = ""

    def begin(self, lease: Lease) -> None:
        """Start the synchronisation, with this process as the driver."""

    def end(self) -> None:
        """End the synchronisation, before this process stops being the driver."""

    def require_synced(self) -> None:
        """Raise InfrastructureError if the driver's files have failed to arrive for too long."""

    def flush(self) -> None:
        """Wait until all written files have arrived; raise InfrastructureError if that fails."""

    def fetch(self, path: Path) -> None:
        """Copy a file of a run into the folder."""

    def newest_checkpoint(self, run: str, before: int | None = None) -> Path | None:
        """Return the latest checkpoint of a run's newest attempt that has one; None if there is none.

        Args:
            before: Number of an attempt; only earlier ones are considered.
        """
        return newest_checkpoint(self.folder / run, before)

    def clear(self, path: Path) -> None:
        """Delete a folder at once; a run that was dropped and starts again may have left checkpoints there."""
        shutil.rmtree(path, ignore_errors=True)

    def discard(self, run: str, attempts: bool = False) -> None:
        """Delete all files of a run, or only its attempts."""
        for folder in (self.folder / run).glob("attempt-*") if attempts else [self.folder / run]:
            shutil.rmtree(folder, ignore_errors=True)

    def discard_superseded(self, run: str, last: int) -> None:
        """Delete the attempts of a run before the newest one that has a checkpoint.

        Args:
            last: Number of the run's last attempt.
        """
        names = (path.relative_to(self.folder).as_posix() for path in (self.folder / run).glob("attempt-*/*"))
        for name in superseded_attempts(names, last):
            shutil.rmtree(self.folder / name, ignore_errors=True)
