"""Requests to a Triton server over HTTP, HTTPS and gRPC, repeated while it is unreachable."""

import http.client
from collections.abc import Callable
from threading import Event
from typing import Any, TypeVar

import numpy as np

from reid_tune.deploy.triton.address import Address
from reid_tune.errors import InfrastructureError, InputError

__all__ = ["Connection"]

_Answer = TypeVar("_Answer")

_ATTEMPTS, _FIRST_WAIT = 5, 0.5  # Attempts of a request to an unreachable server; seconds between the first two.
_UNREACHABLE = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "502", "503", "504")
_FAILURES = ("StatusCode.INTERNAL", "StatusCode.UNKNOWN", "500")  # Such as a backend that the server restarts.


class Connection:
    """A connection that repeats a request while the server is unreachable; for one thread at a time.

    Args:
        address: Address of the server.
        closing: Event that is set once no caller waits for answers any more; it ends the repeats.

    Raises:
        InputError: the extra `triton` is not installed.
    """

    def __init__(self, address: Address, closing: Event) -> None:
        self.address = address
        self._closing = closing
        self._library, self._client = _open_client(address)
        # gRPC needs a timeout for each request; the other protocols have that of the connection.
        self._timeout: dict[str, Any] = {"client_timeout": address.timeout} if address.protocol == "grpc" else {}
        self._as_json: dict[str, Any] = {"as_json": True, **self._timeout} if self._timeout else {}

    def config(self, model: str, version: str) -> dict[str, Any]:
        """Return the configuration of a model, with the fields of `config.pbtxt`.

        Raises:
            InputError: there is no such model or version; the message names the existing models.
            InfrastructureError: the server stays unreachable in several attempts.
        """
        try:
            answer = self._request(lambda: self._client.get_model_config(model, version, **self._as_json))
        except InputError as error:
            if "unknown model" not in str(error):
                raise
            label = f"{model}, version {version}" if version else model
            raise InputError(
                f"the server {self.address} has no model {label}, that is ready; it has "
                f"{', '.join(self._ready_models()) or 'none'}."
            ) from None
        return dict(answer["config"] if self._as_json else answer)

    def infer(
        self, model: str, version: str, tensor: tuple[str, str, np.ndarray], output: str
    ) -> tuple[np.ndarray, str]:
        """Return one output of a model for a batch, and the version that computed it.

        Args:
            model: Name of the model.
            version: Number of its version; empty for the server's choice.
            tensor: Name, type (such as FP32) and values of the input.
            output: Name of the output.

        Raises:
            InputError: the server refuses the batch.
            InfrastructureError: the server fails, or stays unreachable in several attempts.
        """
        name, kind, values = tensor
        model_input = self._library.InferInput(name, values.shape, kind)
        model_input.set_data_from_numpy(values)
        outputs = [self._library.InferRequestedOutput(output)]
        answer = self._request(
            lambda: self._client.infer(model, [model_input], version, outputs=outputs, **self._timeout)
        )
        response = answer.get_response()
        served = response.model_version if self._timeout else response.get("model_version", "")
        return np.asarray(answer.as_numpy(output)), str(served)

    def close(self) -> None:
        """Close the connection; over gRPC, this ends a pending request at once."""
        self._client.close()

    def _ready_models(self) -> list[str]:
        index = self._request(lambda: self._client.get_model_repository_index(**self._as_json))
        entries = index.get("models", []) if self._as_json else index
        return sorted({str(entry["name"]) for entry in entries if entry.get("state") == "READY"})

    def _request(self, send: Callable[[], _Answer]) -> _Answer:
        from tritonclient.utils import InferenceServerException

        reason, has_failed = "", False
        for attempt in range(_ATTEMPTS):
            if attempt and self._closing.wait(_FIRST_WAIT * 2 ** (attempt - 1)):
                break
            try:
                return send()
            except InferenceServerException as error:
                reason, has_failed = _first_line(error.message()), error.status() in _FAILURES
                if not has_failed and error.status() not in _UNREACHABLE:
                    raise InputError(f"the server {self.address} refuses the request: {reason}.") from None
            except (OSError, http.client.HTTPException) as error:
                reason, has_failed = _first_line(error), False
            except Exception as error:  # geventhttpclient's errors have no common base.
                if type(error).__module__.split(".")[0] not in ("geventhttpclient", "gevent"):
                    raise
                reason, has_failed = _first_line(error), False
        if has_failed:
            raise InfrastructureError(f"the Triton server {self.address} fails ({reason}): see its log.")
        raise InfrastructureError(
            f"the Triton server {self.address} does not answer ({reason}): start it again, or check -u."
        )


def _first_line(message: object) -> str:
    """Return the first line of an error, without the prefix that the server puts before requests without an id."""
    line = next(iter(str(message).splitlines()), "") or type(message).__name__
    return line.removeprefix("[request id: <id_unknown>] ").rstrip(".")


def _open_client(address: Address) -> tuple[Any, Any]:
    """Return Triton's client library for a protocol, and a client of it."""
    try:
        if address.protocol == "grpc":
            import tritonclient.grpc as library

            return library, library.InferenceServerClient(address.url)
        import tritonclient.http as library
    except (ImportError, RuntimeError):  # RuntimeError: it is installed without this protocol.
        raise InputError("the client needs the extra 'triton': pip install 'reid-tune[triton]'.") from None
    options: dict[str, Any] = {"connection_timeout": address.timeout, "network_timeout": address.timeout}
    if address.protocol == "https":
        # Otherwise it would trust the authorities of a package in addition to the given one.
        options |= {"ssl": True, "ssl_context_factory": lambda **_: address.ssl_context()}
    return library, library.InferenceServerClient(address.url, **options)
