"""Copy of a sweep in a bucket for its driver, and the thread that uploads it."""

import fcntl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from reid_tune.checkpoints.filenames import newest_checkpoint_name
from reid_tune.errors import InfrastructureError, InputError, ReidTuneError
from reid_tune.files import make_folder
from reid_tune.journal.event_log import CURSOR, EVENTS
from reid_tune.journal.lease import LEASE, Lease
from reid_tune.journal.requests import REQUESTS
from reid_tune.journal.sweep_store import SweepStore, attempt_folder, superseded_attempts
from reid_tune.storage.download_cache import sync_object
from reid_tune.storage.retry import RETRY_SECONDS, retry_while_unavailable
from reid_tune.storage.s3 import S3Store

__all__ = ["S3SweepStore"]

# Seconds between two uploads of the log: _PAUSE_RATIO times the duration of an upload, within the limits.
_MIN_PAUSE, _PAUSE_RATIO, _MAX_PAUSE = 0.5, 20, 10.0
_SCAN_SECONDS = 5.0  # between two searches for requests and changed files
_LAST_FLUSH_SECONDS = 10.0  # for which the end of a sweep waits for an unreachable server
_RESUME = "Finished work is not lost: continue with --resume auto."


class S3SweepStore(SweepStore):
    """Sweep in a bucket: a thread uploads the driver's files, and the files of runs are downloaded when needed.

    The log is one object, which is written again as it grows, at longer intervals if an upload takes long. An object is
    deleted only after the log that explains the deletion has arrived. Runs upload their files, see `run_files`.

    Args:
        bucket: The sweep's objects.
        folder: The copy on this machine.
    """

    def __init__(self, bucket: S3Store, folder: Path) -> None:
        super().__init__(folder)
        self.bucket = bucket
        self.objects, self.remote = bucket, bucket.url
        stat = make_folder(folder).stat()
        self.lock = f"{stat.st_dev}-{stat.st_ino}"
        self._uploaded: dict[str, tuple[int, int]] = {}
        self._deletions: list[Callable[[], Iterable[str]]] = []  # Each returns the names of folders.
        self._copied_requests: set[str] = set()
        self._transfer = threading.Lock()
        self._stop = threading.Event()
        self._lease: Lease | None = None
        self._last_success = time.monotonic()
        self._error = ""
        self._thread = threading.Thread(target=self._synchronise, daemon=True)

    def pull(self) -> None:
        """Make the copy equal to the bucket, without checkpoints, and copy the logs of the storage's other sweeps.

        A local log that continues that of the bucket is kept: its driver was killed before the upload. The log of a
        running driver is kept, too.
        """
        storage = S3Store(self.bucket.url.rpartition("/")[0])
        for name in storage.folders():
            if name != self.folder.name and storage.stat(f"{name}/{EVENTS}"):
                _pull_log(storage / name, self.folder.parent / name)
        if not _pull_log(self.bucket, self.folder):
            return
        objects = self.bucket.objects()
        for name, stat in objects.items():
            if not attempt_folder(name) and name not in (EVENTS, LEASE) and not name.startswith("ray/"):
                path = self.folder / name
                sync_object(self.bucket, name, stat, path)
                if path.exists():
                    self._uploaded[name] = _signature(path)
        for path in self.folder.rglob("*"):
            if path.is_file() and path != self.folder / EVENTS and str(path.relative_to(self.folder)) not in objects:
                path.unlink()

    def begin(self, lease: Lease) -> None:
        if not (self.folder / EVENTS).read_bytes().startswith(_complete_lines(self.bucket)):
            raise InputError(f"another driver has changed {self.bucket} in the meantime: give the command again.")
        self._lease, self._last_success = lease, time.monotonic()
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self.flush(_LAST_FLUSH_SECONDS)

    def require_synced(self) -> None:
        if self._error and time.monotonic() - self._last_success > RETRY_SECONDS:
            raise InfrastructureError(f"{self._error} {_RESUME}")

    def fetch(self, path: Path) -> None:
        retry_while_unavailable(lambda: self.bucket.download(str(path.relative_to(self.folder)), path))

    def newest_checkpoint(self, run: str, before: int | None = None) -> Path | None:
        name = newest_checkpoint_name(retry_while_unavailable(lambda: self.bucket.objects(run)), before)
        return self.folder / name if name else None

    def clear(self, path: Path) -> None:
        super().clear(path)
        retry_while_unavailable(lambda: self.bucket.remove_tree(str(path.relative_to(self.folder))))

    def discard(self, run: str, attempts: bool = False) -> None:
        super().discard(run, attempts)
        self._delete_later(lambda: _attempt_folders(self.bucket, run) if attempts else [run])

    def discard_superseded(self, run: str, last: int) -> None:
        super().discard_superseded(run, last)
        self._delete_later(lambda: superseded_attempts(self.bucket.objects(run), last))

    def _delete_later(self, find_folders: Callable[[], Iterable[str]]) -> None:
        with self._transfer:
            self._deletions.append(find_folders)

    def flush(self, seconds: float | None = None) -> None:
        self._require_lease()
        try:
            retry_while_unavailable(lambda: self._upload(all_files=True), seconds)
        except (ReidTuneError, OSError) as error:
            raise InfrastructureError(f"{error} {_RESUME}") from None

    def _synchronise(self) -> None:
        last_scan = pause = 0.0
        while not self._stop.wait(pause):
            start = time.monotonic()
            try:
                self._require_lease()
                scan = start - last_scan > _SCAN_SECONDS
                self._upload(all_files=scan)
                if scan:
                    self._download_requests()
                    last_scan = start
                self._last_success, self._error = time.monotonic(), ""
            except (ReidTuneError, OSError) as error:
                self._error = f"the storage is unreachable: {error}"
            pause = min(_MAX_PAUSE, max(_MIN_PAUSE, _PAUSE_RATIO * (time.monotonic() - start)))

    def _require_lease(self) -> None:
        if self._lease:
            self._lease.require_held()  # The files of another driver must not be overwritten.

    def _upload(self, *, all_files: bool) -> None:
        with self._transfer:
            deletions = list(self._deletions)
            signatures = dict(self._driver_files()) if all_files else {EVENTS: _signature(self.folder / EVENTS)}
            for name in sorted(signatures, key=_upload_order):
                if self._uploaded.get(name) != signatures[name]:
                    self.bucket.upload(self.folder / name, name)
                    self._uploaded[name] = signatures[name]
            for find_folders in deletions:
                for name in find_folders():
                    self.bucket.remove_tree(name)
                self._deletions.remove(find_folders)

    def _download_requests(self) -> None:
        """Copy new requests, and delete those that the driver has applied."""
        with self._transfer:
            requests = self.bucket.objects(REQUESTS)
            for name, stat in requests.items():
                if name not in self._copied_requests:
                    sync_object(self.bucket, name, stat, self.folder / name)
                    self._copied_requests.add(name)
                elif not (self.folder / name).exists():
                    self.bucket.remove(name)
            self._copied_requests &= requests.keys()

    def _driver_files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield names and signatures of the files that the driver writes."""
        for path in self.folder.rglob("*"):
            name = str(path.relative_to(self.folder))
            is_of_run = attempt_folder(name) or path.name in ("log.txt", "features.npz")
            is_temporary = path.name.startswith(".") or name.startswith((f"{REQUESTS}/", "ray/"))
            if path.is_file() and not is_of_run and not is_temporary:
                yield name, _signature(path)


def _pull_log(bucket: S3Store, folder: Path) -> bool:
    """Replace a log by that of the bucket, unless it continues it; False if a process of this machine writes it."""
    remote_log = _complete_lines(bucket)
    with (make_folder(folder) / EVENTS).open("ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        file.seek(0)
        if not remote_log or not file.read().startswith(remote_log):
            file.truncate(0)
            file.write(remote_log)
    return True


def _complete_lines(bucket: S3Store) -> bytes:
    """Return the log without an incomplete last line."""
    content = bucket.read(EVENTS) or b""
    return content[: content.rfind(b"\n") + 1]


def _upload_order(name: str) -> int:
    # Files are uploaded before the log that names them, and the log before the cursor with a position in it.
    return (EVENTS, CURSOR).index(name) + 1 if name in (EVENTS, CURSOR) else 0


def _signature(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _attempt_folders(bucket: S3Store, run: str) -> list[str]:
    return sorted({attempt_folder(name) for name in bucket.objects(run)} - {""})
