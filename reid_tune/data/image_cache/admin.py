"""Listing, checking and clearing of the image cache."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reid_tune.data.image_cache.cache import image_cache_folder
from reid_tune.data.image_cache.file import SUFFIX, CacheHeader, is_intact, lock_path, partial_files, read_header
from reid_tune.data.image_cache.lock import BuildLock
from reid_tune.data.image_file import describe_error
from reid_tune.errors import InputError

__all__ = ["CacheEntry", "ClearResult", "check_entries", "clear_entries", "list_entries"]


# Names of cache files only, as the folder may hold other files.
_COMPLETE = re.compile(rf"([0-9a-f]{{24}}){re.escape(SUFFIX)}$")
_STARTED = re.compile(rf"\.?([0-9a-f]{{24}})({re.escape(SUFFIX)}|\.lock$)")


@dataclass(frozen=True)
class CacheEntry:
    """One cache file.

    Attributes:
        name: Name without the suffix.
        header: The file's header; None if the header or the size is wrong.
        bytes: Size of the file.
        last_used: Time of the last use.
    """

    name: str
    header: CacheHeader | None
    bytes: int
    last_used: datetime

    def as_dict(self) -> dict[str, Any]:
        """Return the entry for JSON, without the header's fields if the file is damaged."""
        header = asdict(self.header) if self.header else {}
        header.pop("key", None)  # the name
        return {"name": self.name, "bytes": self.bytes, "last_used": self.last_used.isoformat(), **header}

    def row(self) -> dict[str, str]:
        """Return the entry for a table, with the time in the machine's time zone."""
        header = self.header
        return {
            "folder": header.folder if header else "damaged: will be built again",
            "images": f"{header.images:,}" if header else "",
            "height x width": f"{header.height} x {header.width}" if header else "",
            "resized": f"{header.interpolation}{', grey' if header.grey else ''}" if header else "",
            "MB": f"{self.bytes / 1e6:,.1f}",
            "last used": f"{self.last_used.astimezone():%Y-%m-%d %H:%M}",
        }


@dataclass(frozen=True)
class ClearResult:
    """Names of the removed files, and of those that a process has open or builds."""

    removed: list[str]
    in_use: list[str]


def list_entries(name: str | None = None) -> list[CacheEntry]:
    """Return all entries of the cache, or one.

    Raises:
        InputError: There is no file of that name, or the cache cannot be read.
    """
    entries = []
    for path in _paths(name):
        with _reading(path), path.open("rb") as file:
            state = path.stat()
            last_used = datetime.fromtimestamp(state.st_mtime, UTC)
            entries.append(CacheEntry(path.stem, read_header(file), state.st_size, last_used))
    return entries


def check_entries(name: str | None = None) -> dict[str, bool]:
    """Return for each file whether it is intact; reads all of them; errors as in `list_entries`."""
    intact = {}
    for path in _paths(name):
        with _reading(path):
            intact[path.stem] = is_intact(path)
    return intact


def clear_entries(name: str | None = None) -> ClearResult:
    """Remove all files that are not in use, or one, and what dead builders left.

    Raises:
        InputError: There is no file of that name, or one cannot be removed.
    """
    result = ClearResult([], [])
    for path in _paths(name, include_started=True):
        try:
            (result.removed if _remove(path) else result.in_use).append(path.stem)
        except OSError as error:
            raise InputError(f"cannot remove {path}: {describe_error(error)}.") from None
    return result


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Skip a file that another process has removed; raise InputError for one that cannot be read."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"cannot read {path}: {describe_error(error)}.") from None


def _paths(name: str | None, *, include_started: bool = False) -> list[Path]:
    """Return the cache files in order of their names, on request also those that are not complete yet."""
    folder, pattern, names = image_cache_folder(), _STARTED if include_started else _COMPLETE, []
    with _reading(folder):
        names = sorted({match[1] for path in folder.iterdir() if (match := pattern.match(path.name))})
    if name is not None and name not in names:
        raise InputError(f"there is no {name} in {folder}; reid-tune cache lists the files.")
    return [folder / f"{stem}{SUFFIX}" for stem in names if name in (None, stem)]


def _remove(path: Path) -> bool:
    """Remove a file, its partial files and its lock; return False if it is in use."""
    lock = BuildLock.try_acquire(lock_path(path))
    if lock is None:
        return False
    with ExitStack() as stack:
        stack.callback(lock.release)
        for old in partial_files(path):
            old.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            file = stack.enter_context(path.open("r+b"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            path.unlink()
    return True
