"""The first question to a server: is it a Triton, and does it speak so?"""

import http.client
import json
import socket
import ssl

from reid_tune.deploy.triton.address import Address
from reid_tune.errors import InfrastructureError, InputError

__all__ = ["is_server_ready", "require_triton"]


def is_server_ready(address: Address) -> bool:
    """Whether a server over plain HTTP and all its models are ready."""
    return _plain_status(address, "/v2/health/ready") == 200


def require_triton(address: Address) -> None:
    """Ask once, so that a wrong address is said at once.

    Raises:
        InputError: what answers there is no Triton, or speaks another protocol, or its certificate does not fit.
        InfrastructureError: nobody answers.
    """
    if address.protocol == "grpc":
        _require_grpc(address)
    else:
        _require_http(address)


def _require_grpc(address: Address) -> None:
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    client = grpc.InferenceServerClient(address.url)
    try:
        client.is_server_live(client_timeout=address.timeout)
    except InferenceServerException as error:
        if error.status() == "StatusCode.DEADLINE_EXCEEDED":
            raise _nobody(address, "no answer in time") from None
        try:
            socket.create_connection(address.host_and_port, address.timeout).close()
        except OSError as refused:
            raise _nobody(address, refused.strerror or str(refused)) from None
        raise InputError(f"{address} is no Triton server over gRPC: use -i http for its HTTP port.") from None
    finally:
        client.close()


def _require_http(address: Address) -> None:
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
    except (ssl.SSLError, ConnectionResetError) as error:
        if address.protocol == "http":
            raise _other(address) from None
        if _plain_status(address, "/v2") == 200:
            raise InputError(f"{address.url}: server speaks plain HTTP; use -i http.") from None
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{address}: TLS fails with {reason}; check the server's TLS.") from None
    except (http.client.HTTPException, UnicodeError, ValueError):
        raise _other(address) from None
    except OSError as error:
        raise _nobody(address, error.strerror or str(error)) from None
    finally:
        connection.close()
    if not isinstance(found, dict) or "extensions" not in found:
        raise InputError(f"{address} is no Triton server: it answers /v2 with status {answer.status}.")


def _plain_status(address: Address, path: str) -> int | None:
    """The status of an answer over plain HTTP, if there is one."""
    connection = http.client.HTTPConnection(*address.host_and_port, timeout=address.timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _other(address: Address) -> InputError:
    return InputError(
        f"{address} is no Triton server over HTTP: use -i https for one with TLS, -i grpc for its gRPC port."
    )


def _nobody(address: Address, reason: str) -> InfrastructureError:
    return InfrastructureError(f"nobody answers at {address} ({reason}): start the server, or check -u.")
