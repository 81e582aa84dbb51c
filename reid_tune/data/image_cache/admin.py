"""What the image cache holds: listing, checking, clearing."""

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
from reid_tune.data.images import describe_error
from reid_tune.errors import InputError

__all__ = ["ClearResult", "CacheEntry", "check_entries", "clear_entries", "list_entries"]


# Names of our own, as the folder may hold other things.
_WHOLE = re.compile(rf"([0-9a-f]{{24}}){re.escape(SUFFIX)}$")
_BEGUN = re.compile(rf"\.?([0-9a-f]{{24}})({re.escape(SUFFIX)}|\.lock$)")


@dataclass(frozen=True)
class CacheEntry:
    """One file; `header` is None where header or size are wrong, `bytes` is its size."""

    name: str
    header: CacheHeader | None
    bytes: int
    last_used: datetime

    def as_dict(self) -> dict[str, Any]:
        """For JSON; of a damaged file the header's fields are left out."""
        header = asdict(self.header) if self.header else {}
        header.pop("key", None)  # the name
        return {"name": self.name, "bytes": self.bytes, "last_used": self.last_used.isoformat(), **header}

    def row(self) -> dict[str, str]:
        """For a table, with the time of this machine's zone."""
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
    """Names of the files that were removed, and of those that a process has open or builds."""

    removed: list[str]
    in_use: list[str]


def list_entries(name: str | None = None) -> list[CacheEntry]:
    """The files of the cache, or one of them.

    Raises:
        InputError: there is no file of that name, or the cache cannot be read.
    """
    found = []
    for path in _paths(name):
        with _reading(path), path.open("rb") as file:
            state = path.stat()
            used = datetime.fromtimestamp(state.st_mtime, UTC)
            found.append(CacheEntry(path.stem, read_header(file), state.st_size, used))
    return found


def check_entries(name: str | None = None) -> dict[str, bool]:
    """Whether each file holds the pixels that were written; reads them all; errors as of `list_entries`."""
    found = {}
    for path in _paths(name):
        with _reading(path):
            found[path.stem] = is_intact(path)
    return found


def clear_entries(name: str | None = None) -> ClearResult:
    """Remove all files or one, but for those in use, and what dead builders left.

    Raises:
        InputError: there is no file of that name, or one cannot be removed.
    """
    cleared = ClearResult([], [])
    for path in _paths(name, unfinished=True):
        try:
            (cleared.removed if _remove(path) else cleared.in_use).append(path.stem)
        except OSError as error:
            raise InputError(f"cannot remove {path}: {describe_error(error)}.") from None
    return cleared


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Pass over what another process removes meanwhile; an InputError for what cannot be read."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"cannot read {path}: {describe_error(error)}.") from None


def _paths(name: str | None, *, unfinished: bool = False) -> list[Path]:
    """The files by name; with `unfinished` also those that were begun and do not exist yet."""
    folder, pattern, present = image_cache_folder(), _BEGUN if unfinished else _WHOLE, []
    with _reading(folder):
        present = sorted({match[1] for path in folder.iterdir() if (match := pattern.match(path.name))})
    if name is not None and name not in present:
        raise InputError(f"there is no {name} in {folder}; reid-tune cache lists what is there.")
    return [folder / f"{stem}{SUFFIX}" for stem in present if name in (None, stem)]


def _remove(path: Path) -> bool:
    """Remove a file, what is left of it and its lock; False where it is in use."""
    lock = BuildLock.take(lock_path(path))
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
