"""Requests of other processes to a sweep's driver, the only writer of the log: one small file for each request."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reid_tune.storage.object_store import ObjectStore

__all__ = ["REQUESTS", "Request", "submit_request", "remove_request", "pending_requests"]


REQUESTS = "requests"  # folder in that of a sweep
DAMAGED = ".damaged"

Kind = Literal["stop", "enqueue"]


@dataclass(frozen=True)
class Request:
    """One request; a driver that dies between taking it up and `remove_request` finds it again, with the same name.

    Attributes:
        kind: Stop a running trial, or try given values next.
        run: Of `stop`, the trial's run.
        parameters: Of `enqueue`, values by the spec's dotted keys.
    """

    path: Path
    kind: Kind
    run: str = ""
    parameters: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Its name, of which there is one in a sweep."""
        return self.path.stem


def submit_request(store: ObjectStore, kind: Kind, content: Any) -> str:
    """Write a request next to a sweep's log and return the file's name.

    Args:
        store: The sweep's files.
        content: The run to stop, or the parameters to try.

    Raises:
        InputError: the folder cannot be written, or access to the bucket is denied.
        InfrastructureError: the server does not answer.
    """
    name = f"{REQUESTS}/{time.time_ns():020d}-{os.getpid()}.json"
    store.write(name, (json.dumps({"kind": kind, "content": content}) + "\n").encode())
    return name


def pending_requests(
    folder: Path, warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr)
) -> list[Request]:
    """The requests that wait, the oldest first.

    Args:
        warn: Is told of each file that is no request; it is put aside under another name.
    """
    found = []
    for path in sorted((folder / REQUESTS).glob("[0-9]*.json")):
        try:
            found.append(_read(path))
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            aside = path.with_suffix(DAMAGED)
            with suppress(OSError):
                path.replace(aside)
                warn(f"{path} is no request and was put aside as {aside.name}.")
    return found


def remove_request(request: Request) -> None:
    """Forget a request that the log has taken in."""
    request.path.unlink(missing_ok=True)


def _read(path: Path) -> Request:
    match json.loads(path.read_bytes()):
        case {"kind": "stop", "content": str(run)}:
            return Request(path, "stop", run=run)
        case {"kind": "enqueue", "content": dict(parameters)}:
            return Request(path, "enqueue", parameters=parameters)
        case other:
            raise ValueError(other)
