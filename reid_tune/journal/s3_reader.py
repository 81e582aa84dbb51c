"""Copies of sweeps in S3 for commands that read them."""

import shutil

from reid_tune.journal.event_log import EVENTS
from reid_tune.journal.requests import REQUESTS
from reid_tune.journal.sweep_lookup import unknown_sweep_error
from reid_tune.journal.sweep_store import attempt_folder
from reid_tune.storage.download_cache import mirror_folder, sync_object
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store

__all__ = ["snapshot_for_reading"]


def snapshot_for_reading(storage: str, name: str = "") -> str:
    """Return a folder of sweeps, or a new copy of one at `s3://...`: all logs, or one sweep without checkpoints.

    Args:
        name: Name of the only sweep to copy.

    Raises:
        InputError: the bucket or the sweep does not exist, or access is denied.
        InfrastructureError: the server does not answer, or fails.
    """
    if not is_url(storage):
        return storage
    bucket = S3Store(storage)
    folder = mirror_folder("readers", storage)
    names = [sweep for sweep in bucket.folders() if not sweep.startswith(".")]
    if name and bucket.stat(f"{name}/{EVENTS}") is None:
        raise unknown_sweep_error(name, storage, names)
    for copy in folder.glob("*"):
        if copy.name not in names:
            shutil.rmtree(copy)
    folder.mkdir(parents=True, exist_ok=True)
    for sweep in [name] if name else names:
        objects = bucket.objects(sweep) if name else {f"{sweep}/{EVENTS}": bucket.stat(f"{sweep}/{EVENTS}")}
        for path, stat in objects.items():
            if stat and _is_read(path, sweep):
                sync_object(bucket, path, stat, folder / path)
    return str(folder)


def _is_read(path: str, sweep: str) -> bool:
    """Whether commands read a file; they do not read checkpoints, embeddings, models and requests to the driver."""
    return not (
        attempt_folder(path) or path.endswith((".npz", ".pth", ".onnx")) or path.startswith(f"{sweep}/{REQUESTS}/")
    )
