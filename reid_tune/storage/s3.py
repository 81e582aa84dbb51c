"""Object store in an S3 bucket, by pyarrow."""

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

from reid_tune.environment import set_defaults
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import make_folder

__all__ = ["ObjectStat", "S3Store"]

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[^?#]*)?")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CONNECT_SECONDS, _MAX_ATTEMPTS = 10.0, 3  # of one request
_MAX_READ_BYTES = 1 << 26  # larger files are mapped into memory instead of read
_RECENT_NANOSECONDS = 2 * 10**9  # as the times of servers are whole seconds
_DENIED = re.compile(r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|HTTP 403|status:? 403")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
# Amazon's client ends each upload with a checksum, in an encoding that older servers of others store as it is: the
# object then has bytes around the content, without an error.
_OTHER_SERVERS = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}


@dataclass(frozen=True)
class ObjectStat:
    """Size of an object in bytes, and its modification time in nanoseconds since the epoch."""

    size: int
    time: int


@dataclass(frozen=True)
class S3Store:
    """The objects below `s3://BUCKET/PREFIX` by their names below it; an `ObjectStore`.

    Credentials and region are looked up as by every AWS client (environment, profile, the machine's role);
    `AWS_ENDPOINT_URL` or `AWS_ENDPOINT_URL_S3` names a server other than Amazon's. An object becomes
    visible completely or not at all.

    Raises:
        InputError: the address is not that of a bucket, the bucket does not exist, or access is denied.
        InfrastructureError: the server does not answer, or fails.
    """

    url: str

    def __post_init__(self) -> None:
        if not _URL.fullmatch(self.url) or not {"", ".", ".."}.isdisjoint(self.root.split("/")):
            raise InputError(f"{self.url!r} is not the address of a bucket: write s3://BUCKET or s3://BUCKET/PREFIX.")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "S3Store":
        return S3Store(f"{self.url.rstrip('/')}/{name}")

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
        """pyarrow's file system for the server."""
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        region = next((os.environ[name] for name in _REGIONS if os.environ.get(name)), None)
        with self._translate_errors():
            return _filesystem(self.name, endpoint, region)

    def objects(self, prefix: str = "", *, recursive: bool = True) -> dict[str, ObjectStat]:
        """Return all objects below a name, or only those directly below it."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._key(prefix), recursive=recursive, allow_not_found=True)
        with self._translate_errors():
            listing = self.filesystem.get_file_info(selector)
        if not listing:
            self._require_bucket()
        start = len(self.root) + 1
        files = (info for info in listing if info.type == FileType.File)
        return {info.path[start:]: ObjectStat(info.size, info.mtime_ns or 0) for info in files}

    def folders(self) -> list[str]:
        """Return the names of the prefixes directly below this one that have objects."""
        from pyarrow.fs import FileSelector, FileType

        with self._translate_errors():
            listing = self.filesystem.get_file_info(FileSelector(self.root, allow_not_found=True))
        if not listing:
            self._require_bucket()
        return sorted(info.base_name for info in listing if info.type == FileType.Directory)

    def stat(self, name: str = "") -> ObjectStat | None:
        """Return the size and time of an object; None if it does not exist."""
        from pyarrow.fs import FileType

        with self._translate_errors():
            info = self.filesystem.get_file_info(self._key(name))
        return ObjectStat(info.size, info.mtime_ns or 0) if info.type == FileType.File else None

    def read(self, name: str = "") -> bytes | None:
        """Return the content of an object; None if it does not exist."""
        with self._translate_errors():
            try:
                with self.filesystem.open_input_file(self._key(name)) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object."""
        # In one request, so that a failed write leaves the previous object.
        with self._translate_errors(), self.filesystem.open_output_stream(self._key(name)) as stream:
            stream.write(content)

    def upload(self, path: Path, name: str) -> None:
        """Write an object from a file; a large file is memory-mapped and must not be shortened during the upload."""
        import pyarrow

        if path.stat().st_size < _MAX_READ_BYTES:
            self.write(name, path.read_bytes())
            return
        with pyarrow.memory_map(str(path)) as file:
            self.write(name, file.read_buffer())

    def download(self, name: str, path: Path, stat: ObjectStat | None = None) -> bool:
        """Copy an object into a file, which becomes visible when it is complete; False if the object does not exist.

        The file gets the object's time, unless the object is so recent that its next version may have the same time.

        Args:
            stat: Size and time of the object, if known.
        """
        if (stat := stat or self.stat(name)) is None:
            return False
        make_folder(path.parent)
        part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            with (
                self._translate_errors(),
                self.filesystem.open_input_stream(self._key(name)) as source,
                part.open("wb") as target,
            ):
                while block := source.read(1 << 22):
                    target.write(block)
            modified = stat.time if time.time_ns() - stat.time > _RECENT_NANOSECONDS else 0
            os.utime(part, ns=(modified, modified))
            part.replace(path)
        except FileNotFoundError:
            return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def remove(self, name: str) -> None:
        """Delete an object, if it exists."""
        with self._translate_errors(), suppress(FileNotFoundError):
            self.filesystem.delete_file(self._key(name))

    def remove_tree(self, name: str) -> None:
        """Delete all objects below a name."""
        with self._translate_errors(), suppress(FileNotFoundError):
            self.filesystem.delete_dir(self._key(name))

    def _require_bucket(self) -> None:
        """Raise InputError if the bucket does not exist, as its listing is empty then, without an error."""
        from pyarrow.fs import FileType

        with self._translate_errors():
            info = self.filesystem.get_file_info(self.name)
        if info.type == FileType.NotFound:
            raise InputError(f"{self.url}: there is no bucket {self.name}.")

    def _key(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn errors of the server into one sentence, except FileNotFoundError for an object."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            text = str(error)
            if "NO_SUCH_BUCKET" in text or f"ucket '{self.name}' not found" in text:
                raise InputError(f"{self.url}: there is no bucket {self.name}.") from None
            if "TIME_TOO_SKEWED" in text:
                raise InfrastructureError(
                    f"{self.url}: the clock of this machine differs too much from that of the server: correct it."
                ) from None
            if _DENIED.search(text):
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
    if endpoint is not None:
        set_defaults(_OTHER_SERVERS)
    return S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        allow_delayed_open=True,
        connect_timeout=_CONNECT_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_MAX_ATTEMPTS),
    )
