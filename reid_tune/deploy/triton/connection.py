"""Connections to a Triton server over HTTP, HTTPS and gRPC, with the same few questions."""

import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np

from reid_tune.errors import InfrastructureError, InputError

__all__ = ["Address", "Connection", "is_ready"]

Protocol = Literal["http", "https", "grpc"]
_Answer = TypeVar("_Answer")

_ATTEMPTS, _FIRST_WAIT = 5, 0.5  # of a request to a server that is away, and seconds between the first two
_PASSING = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "500", "502", "503", "504")


@dataclass(frozen=True)
class Address:
    """Where a server is.

    Attributes:
        place: HOST:PORT.
        authority: File with the certificate of the authority that is trusted for https, in place of the system's.
        timeout: Seconds for a request.
    """

    protocol: Protocol
    place: str
    authority: Path | None = None
    timeout: float = 60.0

    def __str__(self) -> str:
        return f"{self.protocol}://{self.place}"

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Both parts.

        Raises:
            InputError: it is no HOST:PORT.
        """
        try:
            found = urlsplit(f"//{self.place}")
            if found.hostname and found.port and found.netloc == self.place:
                return found.hostname, found.port
        except ValueError:
            pass
        raise InputError(f"-u {self.place}: give HOST:PORT, such as localhost:8000 (gRPC: localhost:8001).")

    def context(self) -> ssl.SSLContext:
        """What is trusted.

        Raises:
            InputError: the file of the authority is missing or holds no certificate.
        """
        try:
            return ssl.create_default_context(cafile=self.authority)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"--authority {self.authority}: {error.strerror or error}.") from None


class Connection:
    """A connection that is tried again where the server is away for a moment; for one thread at a time.

    Raises:
        InputError: what answers there is no Triton, or speaks another protocol, or its certificate does not fit.
        InfrastructureError: nobody answers.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._library, self._client = _client(address)
        if address.protocol != "grpc":
            _require_triton(address)
        elif not self._ask(self._client.is_server_live):
            raise InfrastructureError(f"the Triton server {address} is not live yet: wait for it.")

    def config(self, model: str, version: str) -> dict[str, Any]:
        """The configuration of a model, as `config.pbtxt` has it.

        Raises:
            InputError: there is no such model or version; the message names those that there are.
        """
        if not self._ask(lambda: self._client.is_model_ready(model, version)):
            raise InputError(
                f"the server {self.address} has no model {model}{f', version {version}' * bool(version)}, that is "
                f"ready; it has {', '.join(self._models()) or 'none'}."
            )
        if self.address.protocol == "grpc":
            return dict(self._ask(lambda: self._client.get_model_config(model, version, as_json=True))["config"])
        return dict(self._ask(lambda: self._client.get_model_config(model, version)))

    def infer(self, model: str, version: str, given: tuple[str, str, np.ndarray], wanted: str) -> np.ndarray:
        """One output of a model for a batch.

        Args:
            given: Name, type (such as FP32) and values of the input.

        Raises:
            InputError: the server refuses the batch.
            InfrastructureError: it is away, also behind several attempts.
        """
        name, kind, values = given
        tensor = self._library.InferInput(name, values.shape, kind)
        tensor.set_data_from_numpy(values)
        outputs = [self._library.InferRequestedOutput(wanted)]
        answer = self._ask(lambda: self._client.infer(model, [tensor], version, outputs=outputs))
        return np.asarray(answer.as_numpy(wanted))

    def close(self) -> None:
        """Let it go."""
        self._client.close()

    def _models(self) -> list[str]:
        options = {"as_json": True} if self.address.protocol == "grpc" else {}
        index = self._ask(lambda: self._client.get_model_repository_index(**options))
        return sorted(str(entry["name"]) for entry in (index.get("models", []) if options else index))

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        from tritonclient.utils import InferenceServerException

        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_FIRST_WAIT * 2 ** (attempt - 1))
            try:
                return question()
            except InferenceServerException as error:
                reason = f"{error.message()}"
                if error.status() not in _PASSING:
                    raise InputError(f"the server {self.address} refuses the request: {reason}.") from None
            except (OSError, http.client.HTTPException, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            except Exception as error:  # geventhttpclient's errors have no common base
                if type(error).__module__.split(".")[0] not in ("geventhttpclient", "gevent"):
                    raise
                reason = str(error) or type(error).__name__
        raise InfrastructureError(
            f"the Triton server {self.address} does not answer ({reason}): start it again, or check -u."
        )


def is_ready(address: Address) -> bool:
    """Whether a server over plain HTTP and all its models are ready."""
    connection = http.client.HTTPConnection(*address.host_and_port, timeout=address.timeout)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _client(address: Address) -> tuple[Any, Any]:
    host, port = address.host_and_port
    try:
        if address.protocol == "grpc":
            import tritonclient.grpc as library

            return library, library.InferenceServerClient(f"{host}:{port}")
        import tritonclient.http as library
    except ImportError:
        raise InputError("the client needs the extra 'triton': pip install 'reid-tune[triton]'.") from None
    more: dict[str, Any] = {}
    if address.protocol == "https":
        more = {"ssl": True, "ssl_context_factory": address.context}
    timeouts = {"connection_timeout": address.timeout, "network_timeout": address.timeout}
    return library, library.InferenceServerClient(f"{host}:{port}", **timeouts, **more)


def _require_triton(address: Address) -> None:
    host, port = address.host_and_port
    if address.protocol == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=address.timeout, context=address.context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=address.timeout)
    try:
        connection.request("GET", "/v2")
        answer = connection.getresponse()
        found = json.loads(answer.read() or b"null")
    except ssl.SSLCertVerificationError as error:
        raise InputError(
            f"the certificate of {address} does not fit ({error.verify_message}): name the file of its authority's "
            "certificate with --authority, or the host that it is for with -u."
        ) from None
    except ssl.SSLError:
        raise InputError(f"{address.place}: server speaks plain HTTP; use -i http.") from None
    except (http.client.HTTPException, UnicodeError, ValueError):
        raise InputError(
            f"{address} is no Triton server over HTTP: use -i https for one with TLS, -i grpc for its gRPC port."
        ) from None
    except OSError as error:
        raise InfrastructureError(
            f"nobody answers at {address} ({error.strerror or error}): start the server, or check -u."
        ) from None
    finally:
        connection.close()
    if not isinstance(found, dict) or "extensions" not in found:
        raise InputError(f"{address} is no Triton server: it answers /v2 with status {answer.status}.")
