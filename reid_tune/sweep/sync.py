"""Sending to MLflow what an ended process has left in its log."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reid_tune.errors import InputError
from reid_tune.journal.event_log import CURSOR, EVENTS, EventLog, read_header
from reid_tune.journal.events import TrainingHeader
from reid_tune.journal.journal import Journal
from reid_tune.journal.lease import Lease
from reid_tune.journal.s3_reader import snapshot_for_reading
from reid_tune.journal.sweep_lookup import sweep_folder
from reid_tune.report.markdown import SweepPage
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store
from reid_tune.tracking.sender import Sent, send_all
from reid_tune.tracking.store import public, with_credentials

__all__ = ["SyncResult", "sync"]


@dataclass(frozen=True)
class SyncResult:
    """What was sent of one log, and where it is now."""

    name: str
    sent: Sent
    uri: str

    def __str__(self) -> str:
        what = f"{self.sent.events} events sent to" if self.sent.events else "nothing was left to send to"
        refusal = f" (not all was taken: {self.sent.refusal})" if self.sent.refusal else ""
        return f"{self.name}: {what} {public(self.uri)}{refusal}"


def sync(name: str, storage: str, uri: str | None, say: Callable[[str], None]) -> list[SyncResult]:
    """Send all that MLflow does not have yet of a sweep, or of the trainings that were recorded in a folder.

    Args:
        name: Of a sweep below the storage, or the folder of a training's checkpoints.
        uri: Another store than the one that the log names.
        say: Told for what is waited.

    Raises:
        InputError: there is neither, or it is still at work and sends by itself.
        InfrastructureError: the store does not answer; what it has got is remembered.
    """
    if trainings := [log for log in sorted(Path(name).glob("events*.jsonl")) if _is_training(log)]:
        return [_training(log, uri) for log in trainings]
    if is_url(storage):
        return [_in_bucket(name, storage, uri, say)]
    with Journal(sweep_folder(name, storage), say) as journal:
        return [_send(name, journal.path, uri, SweepPage)]


def _is_training(log: Path) -> bool:
    return isinstance(read_header(log), TrainingHeader)


def _training(log: Path, uri: str | None) -> SyncResult:
    with EventLog(log):
        return _send(str(log.parent if log.name == EVENTS else log), log, uri, None)


def _in_bucket(name: str, storage: str, uri: str | None, say: Callable[[str], None]) -> SyncResult:
    """The log is copied once no other driver can write it any more."""
    folder = sweep_folder(name, snapshot_for_reading(storage, name))
    bucket = S3Store(storage) / name
    with Lease(bucket, f"sync-{os.getpid()}", wait=say):
        snapshot_for_reading(storage, name)
        found = _send(name, folder / EVENTS, uri, SweepPage)
        bucket.upload(folder / CURSOR, CURSOR)
        return found


def _send(name: str, log: Path, uri: str | None, describe: Callable[[], SweepPage] | None) -> SyncResult:
    header = read_header(log)
    if header is None:
        raise InputError(f"{name} has not begun: {log} is empty.")
    store = uri or with_credentials(header.tracking_uri)
    return SyncResult(name, send_all(log, store, describe, closed=True), store)
