"""First request to a server: check that it is a Triton server and speaks the chosen protocol."""

import http.client
import json
import socket
import ssl

from reid_tune.deploy.triton.address import Address
from reid_tune.errors import InfrastructureError, InputError

__all__ = ["is_server_ready", "require_triton"]


def is_server_ready(address: Address) -> bool:
    """Whether a server over plain HTTP and all its models are ready."""
    return _plain_http_status(address, "/v2/health/ready") == 200


def require_triton(address: Address) -> None:
    """Send one request without retries, so that a wrong address is reported at once.

    Raises:
        InputError: the server is not Triton, speaks another protocol, or its certificate does not match.
        InfrastructureError: no server answers.
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
            raise _unreachable_error(address, "no answer in time") from None
        try:
            socket.create_connection(address.host_and_port, address.timeout).close()
        except OSError as socket_error:
            raise _unreachable_error(address, socket_error.strerror or str(socket_error)) from None
        raise InputError(f"{address} is not a Triton server over gRPC: use -i http for its HTTP port.") from None
    finally:
        client.close()


def _require_http(address: Address) -> None:
    connection = _http_connection(address)
    try:
        connection.request("GET", "/v2")
        response = connection.getresponse()
        content = json.loads(response.read() or b"null")
    except (ssl.SSLError, ConnectionResetError) as error:
        raise _tls_error(address, error) from None
    except (http.client.HTTPException, UnicodeError, ValueError):
        raise _not_triton_error(address) from None
    except OSError as error:
        raise _unreachable_error(address, error.strerror or str(error)) from None
    finally:
        connection.close()
    if not isinstance(content, dict) or "extensions" not in content:
        raise InputError(f"{address} is not a Triton server: it answers /v2 with status {response.status}.")


def _http_connection(address: Address) -> http.client.HTTPConnection:
    host, port = address.host_and_port
    if address.protocol == "https":
        return http.client.HTTPSConnection(host, port, timeout=address.timeout, context=address.ssl_context())
    return http.client.HTTPConnection(host, port, timeout=address.timeout)


def _plain_http_status(address: Address, path: str) -> int | None:
    """Return the status of an answer over plain HTTP; None without an answer."""
    connection = http.client.HTTPConnection(*address.host_and_port, timeout=address.timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _tls_error(address: Address, error: OSError) -> InputError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return InputError(
            f"the certificate of {address} does not match ({error.verify_message}): name the file of its authority's "
            "certificate with --authority, or the host that it was issued for with -u."
        )
    if address.protocol == "http":
        return _not_triton_error(address)
    if _plain_http_status(address, "/v2") == 200:
        return InputError(f"{address.url}: server speaks plain HTTP; use -i http.")
    reason = getattr(error, "reason", None) or error
    return InputError(f"{address}: TLS fails with {reason}; check the server's TLS.")


def _not_triton_error(address: Address) -> InputError:
    return InputError(
        f"{address} is not a Triton server over HTTP: use -i https for one with TLS, -i grpc for its gRPC port."
    )


def _unreachable_error(address: Address, reason: str) -> InfrastructureError:
    return InfrastructureError(f"no server answers at {address} ({reason}): start the server, or check -u.")
