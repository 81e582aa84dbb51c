"""A sweep's files as its driver uses them."""

import shutil
from pathlib import Path

from reid_tune.checkpoints.filenames import newest_attempt
from reid_tune.journal.lease import Lease
from reid_tune.storage.store import FolderPlace, Place

__all__ = ["Files"]


class Files:
    """Those in a folder that all machines see; see `Mirror` for those of a bucket.

    Attributes:
        place: Where the lease is.
        lock: See `Lease`.
        remote: Address of the bucket; empty where the folder is seen by all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place: Place = FolderPlace(folder)
        self.lock = self.remote = ""

    def begin(self, lease: Lease) -> None:
        """This process drives from now on."""

    def end(self) -> None:
        """It does no longer."""

    def require(self) -> None:
        """Refuse to go on where what was written does not arrive; InfrastructureError."""

    def flush(self) -> None:
        """Wait until everything written has arrived; InfrastructureError where it cannot."""

    def fetch(self, path: Path) -> None:
        """Have a file here that a run has written."""

    def newest(self, run: str, before: int | None = None) -> Path | None:
        """Where the latest checkpoint of a run's newest attempt with one is, of those before an attempt if given."""
        return newest_attempt(self.folder / run, before)

    def clear(self, path: Path) -> None:
        """Delete a folder at once: of a run that was dropped and begins anew there may be checkpoints left."""
        shutil.rmtree(path, ignore_errors=True)

    def discard(self, run: str, attempts: bool = False) -> None:
        """Delete all files of a run, or its attempts alone."""
        for folder in (self.folder / run).glob("attempt-*") if attempts else [self.folder / run]:
            shutil.rmtree(folder, ignore_errors=True)
