"""Objects of an S3 bucket, read and written by pyarrow."""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import make_folder

__all__ = ["Bucket", "Stat", "is_url"]

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[^?#]*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9]+:/")  # with one slash, too: such a folder is a mistake
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CONNECT, _ATTEMPTS = 10.0, 3  # seconds for a connection, and attempts at a request
_LARGE = 1 << 26  # bytes
_FRESH = 2 * 10**9  # nanoseconds; servers tell whole seconds
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


@dataclass(frozen=True)
class Stat:
    """Size of an object in bytes, and its time in nanoseconds since the epoch."""

    size: int
    time: int


def is_url(path: Path | str) -> bool:
    """Whether this is an address, and no path of this machine."""
    return bool(_SCHEME.match(str(path)))


@dataclass(frozen=True)
class Bucket:
    """The objects below `s3://BUCKET/PREFIX`, by their names below it.

    Credentials and region are found as every AWS client finds them (environment, profile, the machine's role);
    `AWS_ENDPOINT_URL` or `AWS_ENDPOINT_URL_S3` names another server than Amazon's. An object appears whole or not at
    all.

    Raises:
        InputError: no such address or bucket, or access is denied.
        InfrastructureError: the server does not answer, or fails.
    """

    url: str

    def __post_init__(self) -> None:
        if not _URL.fullmatch(self.url) or not {"", ".", ".."}.isdisjoint(self.root.split("/")):
            raise InputError(f"{self.url!r} is no address of a bucket: write s3://BUCKET or s3://BUCKET/PREFIX.")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Bucket":
        return Bucket(f"{self.url.rstrip('/')}/{name}")

    @property
    def root(self) -> str:
        """Bucket and prefix, as pyarrow names them."""
        return self.url.removeprefix("s3://").strip("/")

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self.root.partition("/")[0]

    @property
    def filesystem(self) -> Any:
        """pyarrow's view of the server."""
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        region = next((os.environ[name] for name in _REGIONS if os.environ.get(name)), None)
        with self._told():
            return _filesystem(self.name, endpoint, region)

    def objects(self, below: str = "", *, deep: bool = True) -> dict[str, Stat]:
        """All objects below a name, or those directly below it."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._at(below), recursive=deep, allow_not_found=True)
        with self._told():
            found = self.filesystem.get_file_info(selector)
        if not found:
            self._require()
        begin = len(self.root) + 1
        return {info.path[begin:]: Stat(info.size, info.mtime_ns or 0) for info in found if info.type == FileType.File}

    def folders(self) -> list[str]:
        """Names directly below which there are objects."""
        from pyarrow.fs import FileSelector, FileType

        with self._told():
            found = self.filesystem.get_file_info(FileSelector(self.root, allow_not_found=True))
        if not found:
            self._require()
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def stat(self, name: str = "") -> Stat | None:
        """Size and time of an object; None where there is none."""
        from pyarrow.fs import FileType

        with self._told():
            info = self.filesystem.get_file_info(self._at(name))
        return Stat(info.size, info.mtime_ns or 0) if info.type == FileType.File else None

    def read(self, name: str = "") -> bytes | None:
        """An object's content; None where there is none."""
        with self._told():
            try:
                with self.filesystem.open_input_file(self._at(name)) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        # In one piece, so that what fails leaves the object that was there.
        with self._told(), self.filesystem.open_output_stream(self._at(name)) as stream:
            stream.write(content)

    def upload(self, path: Path, name: str) -> None:
        """Write an object from a file; a large one is not loaded into memory, and must not be cut meanwhile."""
        import pyarrow

        if path.stat().st_size < _LARGE:
            self.write(name, path.read_bytes())
            return
        with pyarrow.memory_map(str(path)) as file:
            self.write(name, file.read_buffer())

    def download(self, name: str, path: Path, stat: Stat | None = None) -> bool:
        """Copy an object into a file, whole; False where there is none.

        The file has the object's time, unless that may be the time of the next version too.

        Args:
            stat: Of the object, where it is known.
        """
        if (stat := stat or self.stat(name)) is None:
            return False
        make_folder(path.parent)
        part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            with self._told(), self.filesystem.open_input_stream(self._at(name)) as source, part.open("wb") as out:
                while block := source.read(1 << 22):
                    out.write(block)
            known = stat.time if time.time_ns() - stat.time > _FRESH else 0
            os.utime(part, ns=(known, known))
            part.replace(path)
        except FileNotFoundError:
            return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def remove(self, name: str) -> None:
        """Delete an object, if there is one."""
        with self._told(), suppress(FileNotFoundError):
            self.filesystem.delete_file(self._at(name))

    def remove_tree(self, name: str) -> None:
        """Delete all objects below a name."""
        with self._told(), suppress(FileNotFoundError):
            self.filesystem.delete_dir(self._at(name))

    def _require(self) -> None:
        """Refuse a bucket that is not there, in which nothing is found without an error."""
        from pyarrow.fs import FileType

        with self._told():
            info = self.filesystem.get_file_info(self.name)
        if info.type == FileType.NotFound:
            raise InputError(f"{self.url}: there is no bucket {self.name}.")

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the server in one sentence; a missing object stays what it is."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            text = str(error)
            if "NO_SUCH_BUCKET" in text or f"ucket '{self.name}' not found" in text:
                raise InputError(f"{self.url}: there is no bucket {self.name}.") from None
            if "ACCESS_DENIED" in text or "INVALID_ACCESS_KEY" in text or "status: 403" in text or "HTTP 403" in text:
                raise InputError(
                    f"{self.url}: access is denied: give this machine a role, ~/.aws/credentials or AWS_ACCESS_KEY_ID "
                    "and AWS_SECRET_ACCESS_KEY that may list, read, write and delete there."
                ) from None
            reason = re.sub(r" \(Request ID: [^)]*\)", "", text).strip().rstrip(".")
            if "NETWORK_CONNECTION" in text:
                reason = f"the server does not answer, check the network and AWS_ENDPOINT_URL ({reason})"
            raise InfrastructureError(f"{self.url}: {reason}.") from None


@cache
def _filesystem(bucket: str, endpoint: str | None, region: str | None) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    if region is None and endpoint is None:
        region = resolve_s3_region(bucket)
    more = {"connect_timeout": _CONNECT, "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)}
    return S3FileSystem(region=region, endpoint_override=endpoint, allow_delayed_open=True, **more)
