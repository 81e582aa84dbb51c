"""One driver at a time, also where several machines share the storage."""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from reid_tune.errors import InfrastructureError, InputError, ReidTuneError
from reid_tune.storage.store import Place

__all__ = ["LEASE", "Lease"]

LEASE = "driver.json"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Lease:
    """The right to drive a sweep, shown by a file that is written anew every few seconds; a context manager.

    The lease of a process that died on this machine is taken at once, as the lock of the event log shows that it is
    dead; that of another machine after some seconds of silence, by this machine's own clock.

    Args:
        place: Where its file is.
        lock: Names the lock by which processes of this machine know of each other.
        silence: Seconds without a sign behind which a driver on another machine counts as dead.
        wait: Told in words for what is waited.

    Raises:
        InputError: a driver on another machine is alive.
    """

    def __init__(
        self,
        place: Place,
        lock: str = "",
        silence: float = 30.0,
        wait: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.place = place
        self._machine = f"{_machine()}{lock and ':'}{lock}"
        self.silence = silence
        self._owner = secrets.token_hex(8)
        self._count = 0
        self._over = threading.Event()
        self._taken = ""
        self._seen: dict[str, Any] = {}
        waited = self._await_silence(wait)
        self._write()
        if waited:
            # Another driver may have waited for the same one.
            time.sleep(silence / 5)
            self._look()
            self.require()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Refuse to go on where another driver has taken over.

        Raises:
            InfrastructureError: so it is.
        """
        if not self._taken and time.monotonic() - self._written > self.silence / 2:
            self._look()  # This process may have slept, or lost its network, while the other one waited.
        if self._taken:
            raise InfrastructureError(f"the sweep in {self.place} was taken over by a driver on {self._taken}.")

    def release(self) -> None:
        """Let others drive."""
        self._over.set()
        self._thread.join()
        with suppress(OSError, ReidTuneError):  # It then runs out.
            if self._read().get("owner") == self._owner:
                self.place.remove(LEASE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _await_silence(self, wait: Callable[[str], None]) -> bool:
        """Whether there was a driver on another machine, which is silent now."""
        found = self._read()
        if not found or found.get("machine") == self._machine:
            return False
        wait(f"the last driver ran on {found.get('host')}; waiting {self.silence:g} s for a sign of it ...")
        end = time.monotonic() + self.silence
        while time.monotonic() < end:
            time.sleep(self.silence / 60)
            if not (now := self._read()):
                return False
            if now != found:
                raise InputError(
                    f"{self.place} is driven by process {now.get('pid')} on {now.get('host')}: wait for it or stop it."
                )
        return True

    def _beat(self) -> None:
        while not self._over.wait(self.silence / 6):
            try:
                self._look()
                if self._taken:
                    return
                self._write()
            except (OSError, InputError, InfrastructureError):
                continue  # The storage is away; whoever writes the log finds out by itself.

    def _look(self) -> None:
        found = self._read()
        if found and found.get("owner") != self._owner:
            self._taken = str(found.get("host"))

    def _write(self) -> None:
        self._count += 1
        about = {"owner": self._owner, "machine": self._machine, "host": socket.gethostname(), "pid": os.getpid()}
        self.place.write(LEASE, (json.dumps(about | {"count": self._count}) + "\n").encode())
        self._written = time.monotonic()

    def _read(self) -> dict[str, Any]:
        try:
            content = self.place.read(LEASE)
            found = json.loads(content) if content is not None else {}
        except (OSError, ValueError, InfrastructureError):
            return dict(self._seen)  # Such as a stale handle of NFS: no sign of anything.
        self._seen = found if isinstance(found, dict) else {}
        return dict(self._seen)


def _machine() -> str:
    """What tells this running system from others, also from those of its name."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return socket.gethostname()
