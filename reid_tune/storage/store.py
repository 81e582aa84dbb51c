"""A folder or a prefix of a bucket for small files that several machines read and write."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reid_tune.files import write_atomic

__all__ = ["FolderPlace", "Place"]


class Place(Protocol):
    """Small files by name; `Bucket` is one."""

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole."""

    def remove(self, name: str) -> None:
        """Delete a file, if there is one."""


@dataclass(frozen=True)
class FolderPlace:
    """A folder, which is not made: where it is missing, a machine does not share it."""

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
