"""Send to MLflow the events that an ended process has left in its log."""

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
from reid_tune.tracking.sender import SendResult, send_all
from reid_tune.tracking.store import redact, with_credentials

__all__ = ["SyncResult", "sync"]


@dataclass(frozen=True)
class SyncResult:
    """Result for one log.

    Attributes:
        name: Name of the sweep, or folder of the training.
        sent: Events that were sent.
        uri: Address of the MLflow store, with credentials.
    """

    name: str
    sent: SendResult
    uri: str

    def __str__(self) -> str:
        summary = f"{self.sent.events} events sent to" if self.sent.events else "nothing was left to send to"
        refusal = f" (some were rejected: {self.sent.refusal})" if self.sent.refusal else ""
        repair = f" ({self.sent.repair})" if self.sent.repair else ""
        return f"{self.name}: {summary} {redact(self.uri)}{refusal}{repair}"


def sync(name: str, storage: str, uri: str | None, say: Callable[[str], None]) -> list[SyncResult]:
    """Send the events that MLflow does not have yet, of a sweep or of the trainings that were recorded in a folder.

    Args:
        name: Name of a sweep in the storage, or folder of a training's checkpoints.
        storage: Folder or `s3://` address that holds the sweeps.
        uri: Address of another store than the one that the log names.
        say: Function that receives a sentence on what is waited for.

    Raises:
        InputError: neither exists, or its process is still running and sends by itself.
        InfrastructureError: the store is unreachable. The events that it has received are remembered.
    """
    trainings = [log for log in sorted(Path(name).glob("events*.jsonl")) if _is_training(log)]
    if trainings:
        return [_sync_training(log, uri) for log in trainings]
    if is_url(storage):
        return [_sync_remote(name, storage, uri, say)]
    with Journal(sweep_folder(name, storage), say) as journal:
        return [_send(name, journal.path, uri, SweepPage)]


def _is_training(log: Path) -> bool:
    return isinstance(read_header(log), TrainingHeader)


def _sync_training(log: Path, uri: str | None) -> SyncResult:
    with EventLog(log):
        return _send(str(log.parent if log.name == EVENTS else log), log, uri, None)


def _sync_remote(name: str, storage: str, uri: str | None, say: Callable[[str], None]) -> SyncResult:
    """Copy the log once no other driver can write it any more, and send the copy."""
    folder = sweep_folder(name, snapshot_for_reading(storage, name))
    bucket = S3Store(storage) / name
    with Lease(bucket, f"sync-{os.getpid()}", wait=say):
        snapshot_for_reading(storage, name)
        result = _send(name, folder / EVENTS, uri, SweepPage)
        bucket.upload(folder / CURSOR, CURSOR)
        return result


def _send(name: str, log: Path, uri: str | None, describe: Callable[[], SweepPage] | None) -> SyncResult:
    header = read_header(log)
    if header is None:
        raise InputError(f"{name} has not started: {log} is empty.")
    store = uri or with_credentials(header.tracking_uri)
    return SyncResult(name, send_all(log, store, describe, closed=True), store)
