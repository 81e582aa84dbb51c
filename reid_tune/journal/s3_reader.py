"""What commands see of sweeps at s3://, and what they ask of their drivers."""

import shutil

from reid_tune.errors import InputError
from reid_tune.journal.journal import EVENTS
from reid_tune.journal.requests import REQUESTS
from reid_tune.storage.download_cache import copy_object
from reid_tune.storage.s3 import Bucket, is_url
from reid_tune.storage.sweep_copies import attempt_of, copies_for

__all__ = ["deliver", "readable"]


def readable(storage: str, name: str = "") -> str:
    """A folder of sweeps as it is; of one at `s3://...` a copy as of now: all logs, or one sweep without checkpoints.

    Args:
        name: Of the sweep.

    Raises:
        InputError: there is no such bucket or sweep, or access is denied.
        InfrastructureError: the server does not answer, or fails.
    """
    if not is_url(storage):
        return storage
    bucket = Bucket(storage)
    folder = copies_for("readers", storage)
    names = [found for found in bucket.folders() if not found.startswith(".")]
    if name and bucket.stat(f"{name}/{EVENTS}") is None:
        raise InputError(f"there is no sweep {name!r} in {storage}; sweeps there: {', '.join(names) or 'none'}.")
    for gone in folder.glob("*"):
        if gone.name not in names:
            shutil.rmtree(gone)
    folder.mkdir(parents=True, exist_ok=True)
    for found in [name] if name else names:
        objects = bucket.objects(found) if name else {f"{found}/{EVENTS}": bucket.stat(f"{found}/{EVENTS}")}
        for path, stat in objects.items():
            # Embeddings and models are not what is read, and requests are the driver's.
            unread = (
                attempt_of(path) or path.endswith((".npz", ".pth", ".onnx")) or path.startswith(f"{found}/{REQUESTS}/")
            )
            if stat and not unread:
                copy_object(bucket, path, stat, folder / path)
    return str(folder)


def deliver(storage: str, name: str) -> None:
    """Send the requests in a reader's copy of a sweep to the driver; nothing to do where there is no copy."""
    if is_url(storage):
        for path in sorted((copies_for("readers", storage) / name / REQUESTS).glob("*.json")):
            Bucket(storage).upload(path, f"{name}/{REQUESTS}/{path.name}")
            path.unlink()
