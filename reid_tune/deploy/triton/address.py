"""Address of a Triton server, and the certificate authority that is trusted."""

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
    """Address of a server.

    Attributes:
        protocol: http, https or grpc.
        url: HOST:PORT, as Triton's own clients take it.
        ca_file: File with the certificate of the authority that is trusted for https, instead of the system's.
        timeout: Timeout of a request in seconds.

    Raises:
        InputError: the URL is not HOST:PORT, or the file is missing or holds no certificate.
    """

    protocol: Protocol
    url: str
    ca_file: Path | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        _ = self.host_and_port
        if self.ca_file:
            self.ssl_context()

    def __str__(self) -> str:
        return f"{self.protocol}://{self.url}"

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Host and port of the URL.

        Raises:
            InputError: the URL is not HOST:PORT.
        """
        try:
            parts = urlsplit(f"//{self.url}")
            host = parts.hostname or ""
            # The encoding in which a name is looked up refuses empty and long labels; IPv6 addresses have none.
            name = host if ":" in host else host.encode("idna").decode()
            if _HOST.fullmatch(name) and parts.port and parts.netloc == self.url and "@" not in self.url:
                return host, parts.port
        except ValueError:
            pass
        raise InputError(f"-u {self.url}: give HOST:PORT, such as localhost:8000 (gRPC: localhost:8001).")

    def ssl_context(self) -> ssl.SSLContext:
        """Return the TLS settings for https.

        Raises:
            InputError: the file is missing or holds no certificate.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"--authority {self.ca_file}: {error.strerror or error}.") from None
