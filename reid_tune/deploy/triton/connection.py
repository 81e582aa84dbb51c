"""Connections to a Triton server over HTTP, HTTPS and gRPC, with the same few questions."""

import http.client
from collections.abc import Callable
from threading import Event
from typing import Any, TypeVar

import numpy as np

from reid_tune.deploy.triton.address import Address
from reid_tune.errors import InfrastructureError, InputError

__all__ = ["Connection"]

_Answer = TypeVar("_Answer")

_ATTEMPTS, _FIRST_WAIT = 5, 0.5  # of a request to a server that is away, and seconds between the first two
_AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "502", "503", "504")
_FAILURES = ("StatusCode.INTERNAL", "StatusCode.UNKNOWN", "500")  # such as a backend that the server starts again


class Connection:
    """A connection that is tried again where the server is away for a moment; for one thread at a time.

    Args:
        over: Is set where nobody waits for answers any more.

    Raises:
        InputError: the extra `triton` is not installed.
    """

    def __init__(self, address: Address, over: Event) -> None:
        self.address = address
        self._over = over
        self._library, self._client = _client(address)
        # gRPC has no timeout of its own; the others' is that of the connection.
        self._limit: dict[str, Any] = {"client_timeout": address.timeout} if address.protocol == "grpc" else {}
        self._as_json: dict[str, Any] = {"as_json": True, **self._limit} if self._limit else {}

    def config(self, model: str, version: str) -> dict[str, Any]:
        """The configuration of a model, as `config.pbtxt` has it.

        Raises:
            InputError: there is no such model or version; the message names the models that there are.
            InfrastructureError: the server is away, also behind several attempts.
        """
        try:
            found = self._ask(lambda: self._client.get_model_config(model, version, **self._as_json))
        except InputError as error:
            if "unknown model" not in str(error):
                raise
            wanted = f"{model}, version {version}" if version else model
            raise InputError(
                f"the server {self.address} has no model {wanted}, that is ready; it has "
                f"{', '.join(self._models()) or 'none'}."
            ) from None
        return dict(found["config"] if self._as_json else found)

    def infer(
        self, model: str, version: str, given: tuple[str, str, np.ndarray], wanted: str
    ) -> tuple[np.ndarray, str]:
        """One output of a model for a batch, and the version that computed it.

        Args:
            given: Name, type (such as FP32) and values of the input.

        Raises:
            InputError: the server refuses the batch.
            InfrastructureError: it fails, or is away, also behind several attempts.
        """
        name, kind, values = given
        tensor = self._library.InferInput(name, values.shape, kind)
        tensor.set_data_from_numpy(values)
        outputs = [self._library.InferRequestedOutput(wanted)]
        answer = self._ask(lambda: self._client.infer(model, [tensor], version, outputs=outputs, **self._limit))
        about = answer.get_response()
        served = about.model_version if self._limit else about.get("model_version", "")
        return np.asarray(answer.as_numpy(wanted)), str(served)

    def close(self) -> None:
        """Let it go; over gRPC, a request under way ends at once."""
        self._client.close()

    def _models(self) -> list[str]:
        index = self._ask(lambda: self._client.get_model_repository_index(**self._as_json))
        entries = index.get("models", []) if self._as_json else index
        return sorted({str(entry["name"]) for entry in entries if entry.get("state") == "READY"})

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        from tritonclient.utils import InferenceServerException

        reason, failed = "", False
        for attempt in range(_ATTEMPTS):
            if attempt and self._over.wait(_FIRST_WAIT * 2 ** (attempt - 1)):
                break
            try:
                return question()
            except InferenceServerException as error:
                reason, failed = _line(error.message()), error.status() in _FAILURES
                if not failed and error.status() not in _AWAY:
                    raise InputError(f"the server {self.address} refuses the request: {reason}.") from None
            except (OSError, http.client.HTTPException) as error:
                reason, failed = _line(error), False
            except Exception as error:  # geventhttpclient's errors have no common base
                if type(error).__module__.split(".")[0] not in ("geventhttpclient", "gevent"):
                    raise
                reason, failed = _line(error), False
        if failed:
            raise InfrastructureError(f"the Triton server {self.address} fails ({reason}): see its log.")
        raise InfrastructureError(
            f"the Triton server {self.address} does not answer ({reason}): start it again, or check -u."
        )


def _line(said: object) -> str:
    """What an error says, in a line without the server's name for a request that has none."""
    first = next(iter(str(said).splitlines()), "") or type(said).__name__
    return first.removeprefix("[request id: <id_unknown>] ").rstrip(".")


def _client(address: Address) -> tuple[Any, Any]:
    try:
        if address.protocol == "grpc":
            import tritonclient.grpc as library

            return library, library.InferenceServerClient(address.url)
        import tritonclient.http as library
    except (ImportError, RuntimeError):  # the second where it is there without this protocol
        raise InputError("the client needs the extra 'triton': pip install 'reid-tune[triton]'.") from None
    more: dict[str, Any] = {}
    if address.protocol == "https":
        # It is offered the authorities of a package, which must not be trusted beside one's own.
        more = {"ssl": True, "ssl_context_factory": lambda **_: address.context()}
    timeouts = {"connection_timeout": address.timeout, "network_timeout": address.timeout}
    return library, library.InferenceServerClient(address.url, **timeouts, **more)
