"""The driver's copy of a sweep at s3://."""

import fcntl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from reid_tune.checkpoints.filenames import newest_of
from reid_tune.errors import InfrastructureError, InputError, ReidTuneError
from reid_tune.files import make_folder
from reid_tune.journal.event_log import CURSOR, EVENTS
from reid_tune.journal.lease import LEASE, Lease
from reid_tune.journal.requests import REQUESTS
from reid_tune.journal.sweep_files import Files
from reid_tune.storage.download_cache import copy_object
from reid_tune.storage.retry import PATIENCE, patiently
from reid_tune.storage.s3 import Bucket
from reid_tune.storage.sweep_copies import attempt_of

__all__ = ["Mirror"]

_EVERY, _SHARE, _LONGEST = 0.5, 20, 10.0  # seconds between two uploads of the log, or so many times what one takes
_LOOK = 5.0  # seconds between two looks for requests and changed files
_HURRY = 10.0  # seconds without the storage behind which a sweep's end waits no more
_ON = "Nothing finished is lost: go on with --resume auto."


class Mirror(Files):
    """Copies what the driver writes to a bucket, by a thread, and what it needs of the runs from there.

    The log is one object, written again as it grows: where that takes long, at longer intervals. What is deleted is
    deleted there only when the log has arrived that says why. Runs copy their own files, see `run_files`.

    Args:
        bucket: Of the sweep.
        folder: The copy.
    """

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        super().__init__(folder)
        self.bucket = bucket
        self.place, self.remote = bucket, bucket.url
        state = make_folder(folder).stat()
        self.lock = f"{state.st_dev}-{state.st_ino}"
        self._sent: dict[str, tuple[int, int]] = {}
        self._deletions: list[tuple[str, bool]] = []
        self._asked: set[str] = set()
        self._work = threading.Lock()
        self._over = threading.Event()
        self._lease: Lease | None = None
        self._well = time.monotonic()
        self._fault = ""
        self._thread = threading.Thread(target=self._keep_up, daemon=True)

    def pull(self) -> None:
        """Make the copy what the bucket has, apart from checkpoints, and the logs of the storage's other sweeps.

        A log here that goes on where that of the bucket ends is kept: its driver was killed before it could copy it. So
        is that of a driver at work.
        """
        storage = Bucket(self.bucket.url.rpartition("/")[0])
        for name in storage.folders():
            if name != self.folder.name and storage.stat(f"{name}/{EVENTS}"):
                _pull_log(storage / name, self.folder.parent / name)
        if not _pull_log(self.bucket, self.folder):
            return
        objects = self.bucket.objects()
        for name, stat in objects.items():
            if not attempt_of(name) and name not in (EVENTS, LEASE) and not name.startswith("ray/"):
                copy_object(self.bucket, name, stat, path := self.folder / name)
                if path.exists():
                    self._sent[name] = _sign(path)
        for path in self.folder.rglob("*"):
            if path.is_file() and path != self.folder / EVENTS and str(path.relative_to(self.folder)) not in objects:
                path.unlink()

    def begin(self, lease: Lease) -> None:
        if not (self.folder / EVENTS).read_bytes().startswith(_whole_log(self.bucket)):
            raise InputError(f"another driver has worked on {self.bucket} meanwhile: give the command again.")
        self._lease, self._well = lease, time.monotonic()
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self.flush(_HURRY)

    def require(self) -> None:
        if self._fault and time.monotonic() - self._well > PATIENCE:
            raise InfrastructureError(f"{self._fault} {_ON}")

    def fetch(self, path: Path) -> None:
        patiently(lambda: self.bucket.download(str(path.relative_to(self.folder)), path))

    def newest(self, run: str, before: int | None = None) -> Path | None:
        name = newest_of(patiently(lambda: self.bucket.objects(run)), before)
        return self.folder / name if name else None

    def clear(self, path: Path) -> None:
        super().clear(path)
        patiently(lambda: self.bucket.remove_tree(str(path.relative_to(self.folder))))

    def discard(self, run: str, attempts: bool = False) -> None:
        super().discard(run, attempts)
        with self._work:
            self._deletions.append((run, attempts))

    def flush(self, seconds: float | None = None) -> None:
        self._require_lease()
        try:
            patiently(lambda: self._send(all_files=True), seconds)
        except (ReidTuneError, OSError) as error:
            raise InfrastructureError(f"{error} {_ON}") from None

    def _keep_up(self) -> None:
        looked = pause = 0.0
        while not self._over.wait(pause):
            begun = time.monotonic()
            try:
                self._require_lease()
                look = begun - looked > _LOOK
                self._send(all_files=look)
                if look:
                    self._take_requests()
                    looked = begun
                self._well, self._fault = time.monotonic(), ""
            except (ReidTuneError, OSError) as error:
                self._fault = f"the storage is away: {error}"
            pause = min(_LONGEST, max(_EVERY, _SHARE * (time.monotonic() - begun)))

    def _require_lease(self) -> None:
        if self._lease:
            self._lease.require()  # What another driver has written is not replaced.

    def _send(self, *, all_files: bool) -> None:
        with self._work:
            deletions = list(self._deletions)
            names = dict(self._own_files()) if all_files else {EVENTS: _sign(self.folder / EVENTS)}
            for name in sorted(names, key=_order):
                if self._sent.get(name) != names[name]:
                    self.bucket.upload(self.folder / name, name)
                    self._sent[name] = names[name]
            for run, attempts in deletions:
                for name in _attempts(self.bucket, run) if attempts else [run]:
                    self.bucket.remove_tree(name)
                self._deletions.remove((run, attempts))

    def _take_requests(self) -> None:
        with self._work:
            there = self.bucket.objects(REQUESTS)
            for name, stat in there.items():
                if name not in self._asked:
                    copy_object(self.bucket, name, stat, self.folder / name)
                    self._asked.add(name)
                elif not (self.folder / name).exists():
                    self.bucket.remove(name)
            self._asked &= there.keys()

    def _own_files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Names and states of the files that the driver writes."""
        for path in self.folder.rglob("*"):
            name = str(path.relative_to(self.folder))
            of_run = attempt_of(name) or path.name in ("log.txt", "features.npz")
            passing = path.name.startswith(".") or name.startswith((f"{REQUESTS}/", "ray/"))
            if path.is_file() and not of_run and not passing:
                yield name, _sign(path)


def _pull_log(bucket: Bucket, folder: Path) -> bool:
    """Whether no process of this machine writes the log in a folder, which then is that of the bucket, or longer."""
    there = _whole_log(bucket)
    with (make_folder(folder) / EVENTS).open("ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        file.seek(0)
        if not there or not file.read().startswith(there):
            file.truncate(0)
            file.write(there)
    return True


def _whole_log(bucket: Bucket) -> bytes:
    """A log without a last line that is torn."""
    content = bucket.read(EVENTS) or b""
    return content[: content.rfind(b"\n") + 1]


def _order(name: str) -> int:
    # What the log tells of is there before it, and what tells how much of the log was read comes behind it.
    return (EVENTS, CURSOR).index(name) + 1 if name in (EVENTS, CURSOR) else 0


def _sign(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _attempts(bucket: Bucket, run: str) -> list[str]:
    return sorted({attempt_of(name) for name in bucket.objects(run)} - {""})
