"""Sending to MLflow what an ended process has left in its log."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.events.log import EventLog, read_events
from reid_tune.storage.bucket import Bucket, is_url
from reid_tune.sweep.journal import EVENTS, Journal
from reid_tune.sweep.lease import Lease
from reid_tune.sweep.remote.readers import readable
from reid_tune.sweep.report.markdown import SweepPage
from reid_tune.sweep.report.summary import sweep_folder
from reid_tune.tracking.sender import send_all
from reid_tune.tracking.store import public, with_credentials

__all__ = ["Synced", "sync"]


@dataclass(frozen=True)
class Synced:
    """What was sent of one log, and where it is now."""

    name: str
    events: int
    uri: str

    def __str__(self) -> str:
        what = f"{self.events} events sent to" if self.events else "nothing was left to send to"
        return f"{self.name}: {what} {public(self.uri)}"


def sync(name: str, storage: str, uri: str | None, say: Callable[[str], None]) -> Synced:
    """Send all that MLflow does not have yet of a sweep, or of a training in a folder that was recorded.

    Args:
        name: Of a sweep below the storage, or the folder of a training's checkpoints.
        uri: Another store than the one that the log names.
        say: Told for what is waited.

    Raises:
        InputError: there is neither, or it is still at work and sends by itself.
        InfrastructureError: the store does not answer; what it has got is remembered.
    """
    training = Path(name) / EVENTS
    if training.is_file() and read_events(training)[:1] and read_events(training)[0]["kind"] == "train":
        with EventLog(training):
            return _send(name, training, uri, None)
    folder = sweep_folder(name, readable(storage, name))
    with _driver(folder, storage, name, say):
        return _send(name, folder / EVENTS, uri, SweepPage)


def _send(name: str, log: Path, uri: str | None, describe: Callable[[], SweepPage] | None) -> Synced:
    if not (header := read_events(log)[:1]):
        raise InputError(f"{name} has not begun: {log} is empty.")
    store = uri or with_credentials(header[0]["tracking_uri"])
    return Synced(name, send_all(log, store, describe, closed=True), store)


def _driver(folder: Path, storage: str, name: str, say: Callable[[str], None]) -> AbstractContextManager[object]:
    """The right of a sweep's driver, so that no other process sends meanwhile."""
    return Lease(Bucket(storage) / name, wait=say) if is_url(storage) else Journal(folder, say)
