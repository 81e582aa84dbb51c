"""Requests of users to a sweep's driver, the only writer of the log: one small file for each request."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reid_tune.journal.checksum import add_checksum, read_checked
from reid_tune.storage.object_store import ObjectStore

__all__ = ["REQUESTS", "Request", "pending_requests", "remove_request", "submit_request"]

REQUESTS = "requests"  # folder of requests in that of a sweep
_DAMAGED = ".damaged"

Kind = Literal["stop", "enqueue"]


@dataclass(frozen=True)
class Request:
    """One request; a driver that dies before `remove_request` finds it again, with the same name.

    Attributes:
        path: File of the request.
        kind: `stop` a running trial, or `enqueue` a trial with given values.
        run: Name of the run to stop.
        parameters: Values to try, by dotted keys of the spec.
    """

    path: Path
    kind: Kind
    run: str = ""
    parameters: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the request, unique in a sweep."""
        return self.path.stem


def submit_request(store: ObjectStore, kind: Kind, content: Any) -> str:
    """Write a request next to a sweep's log and return the file's name.

    Args:
        store: The sweep's files.
        content: The run to stop, or the parameters to try.

    Raises:
        InputError: The folder cannot be written, or access to the bucket is denied.
        InfrastructureError: The server does not answer.
    """
    name = f"{REQUESTS}/{time.time_ns():020d}-{os.getpid()}.json"
    store.write(name, add_checksum({"kind": kind, "content": content}) + b"\n")
    return name


def pending_requests(
    folder: Path, warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr)
) -> list[Request]:
    """Return the requests that were not removed yet, the oldest first.

    Args:
        folder: Folder of the sweep.
        warn: Receives a line about each file that is not a request. Such a file is renamed.
    """
    requests = []
    for path in sorted((folder / REQUESTS).glob("[0-9]*.json")):
        try:
            requests.append(_read(path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            renamed = path.with_suffix(_DAMAGED)
            with suppress(OSError):
                path.replace(renamed)
                warn(f"{path} is damaged or not a request, and was renamed to {renamed.name}: give the command again.")
    return requests


def remove_request(request: Request) -> None:
    """Delete a request that the log has recorded."""
    request.path.unlink(missing_ok=True)


def _read(path: Path) -> Request:
    match read_checked(path.read_bytes()):
        case {"kind": "stop", "content": str(run)}:
            return Request(path, "stop", run=run)
        case {"kind": "enqueue", "content": dict(parameters)}:
            return Request(path, "enqueue", parameters=parameters)
        case content:
            raise ValueError(content)
