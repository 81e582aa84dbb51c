"""Interface to files that several machines read and write, in a shared folder or below a prefix of an S3 bucket."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reid_tune.files import write_atomic

__all__ = ["LocalStore", "ObjectStore", "is_url", "open_store"]

_SCHEME = re.compile(r"[a-z][a-z0-9]+:/")  # also with one slash, as no folder has such a name


class ObjectStore(Protocol):
    """Files below a folder or a prefix, by their names with `/`; `S3Store` is the implementation for S3.

    Methods raise InfrastructureError if a server does not answer, and InputError if access is denied.
    """

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it does not exist."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which becomes visible completely or not at all."""

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""


@dataclass(frozen=True)
class LocalStore:
    """An existing folder. It is never created: if it is missing, the machine does not have the shared storage."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(2, "No such file or directory", str(self.folder))
        write_atomic(self.folder / name, content)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


def is_url(path: Path | str) -> bool:
    """Whether a path is an address such as `s3://...` and not a path of this machine."""
    return bool(_SCHEME.match(str(path)))


def open_store(address: str) -> ObjectStore:
    """Return the store at a path, or at `s3://BUCKET/PREFIX`.

    Raises:
        InputError: the address is not that of a bucket.
    """
    from reid_tune.storage.s3 import S3Store

    return S3Store(address) if is_url(address) else LocalStore(Path(address))
