"""Where a Triton server is, and whom to trust there."""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from reid_tune.errors import InputError

__all__ = ["Address"]

_HOST = re.compile(r"[\w.:%-]+", re.ASCII)

Protocol = Literal["http", "https", "grpc"]


@dataclass(frozen=True)
class Address:
    """Where a server is.

    Attributes:
        url: HOST:PORT.
        ca_file: File with the certificate of the authority that is trusted for https, in place of the system's.
        timeout: Seconds for a request.

    Raises:
        InputError: the place is no HOST:PORT, or the file is missing or holds no certificate.
    """

    protocol: Protocol
    url: str
    ca_file: Path | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        _ = self.host_and_port
        if self.ca_file:
            self.context()

    def __str__(self) -> str:
        return f"{self.protocol}://{self.url}"

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Both parts of the place."""
        try:
            found = urlsplit(f"//{self.url}")
            host = found.hostname or ""
            # The form in which a name is looked up refuses empty and long parts; IPv6 has none.
            name = host if ":" in host else host.encode("idna").decode()
            if _HOST.fullmatch(name) and found.port and found.netloc == self.url and "@" not in self.url:
                return host, found.port
        except ValueError:
            pass
        raise InputError(f"-u {self.url}: give HOST:PORT, such as localhost:8000 (gRPC: localhost:8001).")

    def context(self) -> ssl.SSLContext:
        """What is trusted."""
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"--authority {self.ca_file}: {error.strerror or error}.") from None
