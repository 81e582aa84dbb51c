"""Exclusive right to drive a sweep, kept alive by a heartbeat file; also across machines that share the storage."""

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
from reid_tune.journal.checksum import DamageError, add_checksum, read_checked
from reid_tune.storage.object_store import ObjectStore

__all__ = ["LEASE", "Lease"]

LEASE = "driver.json"
_UNKNOWN = "an unknown machine"  # in a lease that is damaged
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Lease:
    """Exclusive right to drive a sweep, held as long as a file is rewritten every few seconds; a context manager.

    The lease of a process that died on this machine is taken over at once, as the lock of the event log shows that the
    process has ended. The lease of another machine is taken over after some seconds without a heartbeat, by this
    machine's clock.

    Args:
        store: The sweep's files, which hold the lease.
        lock: Identifier of the lock by which processes of this machine exclude each other.
        silence: Seconds without a heartbeat after which a driver on another machine counts as dead.
        wait: Receives a line about the driver whose silence is awaited.

    Raises:
        InputError: A driver on another machine is alive.
    """

    def __init__(
        self,
        store: ObjectStore,
        lock: str = "",
        silence: float = 30.0,
        wait: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.store = store
        self._machine = f"{_machine()}{lock and ':'}{lock}"
        self.silence = silence
        self._owner = secrets.token_hex(8)
        self._count = 0
        self._released = threading.Event()
        self._new_host = ""  # of the driver that has taken the lease from this one
        self._last_content: dict[str, Any] = {}
        waited = self._await_silence(wait)
        self._write()
        if waited:
            # Another driver may have waited for the same lease.
            time.sleep(silence / 5)
            self._check_owner()
            self.require_held()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def require_held(self) -> None:
        """Check that this process still holds the lease.

        Raises:
            InfrastructureError: Another driver has taken over.
        """
        if not self._new_host and time.monotonic() - self._written > self.silence / 2:
            self._check_owner()  # This process may have been suspended, or without network, while another one waited.
        if self._new_host:
            raise InfrastructureError(f"the sweep in {self.store} was taken over by a driver on {self._new_host}.")

    def release(self) -> None:
        """Give the lease up."""
        self._released.set()
        self._thread.join()
        with suppress(OSError, ReidTuneError):  # If the file remains, the lease expires.
            if self._read().get("owner") == self._owner:
                self.store.remove(LEASE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _await_silence(self, wait: Callable[[str], None]) -> bool:
        """Wait until a driver on another machine is silent; False if there was none."""
        first = self._read()
        if not first or first.get("machine") == self._machine:
            return False
        wait(f"the last driver ran on {first.get('host', _UNKNOWN)}; waiting {self.silence:g} s for a heartbeat ...")
        end = time.monotonic() + self.silence
        while time.monotonic() < end:
            time.sleep(self.silence / 60)
            if not (content := self._read()):
                return False
            if content != first:
                host = content.get("host", _UNKNOWN)
                raise InputError(
                    f"{self.store} is driven by process {content.get('pid')} on {host}: wait for it or stop it."
                )
        return True

    def _beat(self) -> None:
        while not self._released.wait(self.silence / 6):
            try:
                start = time.monotonic()
                self._check_owner()
                if self._new_host:
                    return
                # In a suspended process the answer has become old: another driver may have written since.
                if time.monotonic() - start < self.silence / 2:
                    self._write()
            except (OSError, InputError, InfrastructureError):
                continue  # The storage is unreachable; the writer of the log notices it, too.

    def _check_owner(self) -> None:
        content = self._read()
        if content.get("owner", self._owner) != self._owner:
            self._new_host = str(content.get("host"))

    def _write(self) -> None:
        self._count += 1
        content = {"owner": self._owner, "machine": self._machine, "host": socket.gethostname(), "pid": os.getpid()}
        self.store.write(LEASE, add_checksum(content | {"count": self._count}) + b"\n")
        self._written = time.monotonic()

    def _read(self) -> dict[str, Any]:
        try:
            text = self.store.read(LEASE)
            self._last_content = read_checked(text) if text is not None else {}
        except DamageError:
            return {"damaged": text}  # Somebody may drive: the next heartbeat tells, with a whole file.
        except (OSError, InfrastructureError):
            pass  # For example a stale handle of NFS, which says nothing about the driver.
        return dict(self._last_content)


def _machine() -> str:
    """Return an identifier of this system since its start; systems with the same host name have different ones."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return socket.gethostname()
