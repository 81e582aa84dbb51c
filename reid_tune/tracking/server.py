"""Check of the server at a store's address: that it answers, is an MLflow server and accepts this user."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from requests import Response

__all__ = ["CREDENTIALS", "PATIENT", "QUICK", "Patience", "server_error"]

_CONNECT_SECONDS = 2.0
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_REQUEST_PATH = "/api/2.0/mlflow/experiments/search"
_BUSY_STATUSES = (429, 503)
CREDENTIALS = "refuses this user: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_START_SERVER = "start it, or set MLFLOW_TRACKING_URI"
_USE_HTTPS = "speaks TLS: write https:// in MLFLOW_TRACKING_URI"
_USE_HTTP = "does not speak TLS: write http:// in MLFLOW_TRACKING_URI"
_TRUST_CERTIFICATE = (
    "name the certificate of its authority in MLFLOW_TRACKING_SERVER_CERT_PATH, or set "
    "MLFLOW_TRACKING_INSECURE_TLS=true to trust it"
)
_NOT_MLFLOW = "is not an MLflow server: check its port and path, and set MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Patience:
    """How long a check waits for a server.

    Attributes:
        response: Seconds in which the server must begin to answer.
        total: Seconds of the whole check, name servers, slow answers and retries included.
        pauses: Seconds before each retry, when the server answers that it is busy.
    """

    response: float
    total: float
    pauses: tuple[float, ...] = ()


QUICK = Patience(response=3.0, total=10.0)  # of a warning
PATIENT = Patience(response=30.0, total=60.0, pauses=(1.0, 2.0, 4.0))  # of an error, which may end a sweep


def server_error(uri: str, patience: Patience = QUICK) -> str | None:
    """Describe why a store's server cannot be used, as the rest of a sentence; None if it can, or there is no server.

    An MLflow server receives a request like those of MLflow's client, with the same environment variables for users,
    certificates and proxies. A database server is checked only for an open port.

    Raises:
        Exception: MLflow raises an error that is not one of the usual ones.
    """
    url = urlsplit(uri)
    if url.scheme in ("http", "https"):
        import mlflow  # noqa: F401  # not in the thread: two that import it can each see an incomplete module

        return _in_time(lambda: _mlflow_error(uri, patience), patience.total)
    return _in_time(lambda: _database_error(url), patience.total) if url.hostname and _port(url) else None


def _in_time(check: Callable[[], str | None], seconds: float) -> str | None:
    """Return the result of a check; a sentence if it takes too long, for example because an answer trickles in."""
    results = SimpleQueue[tuple[str | None, Exception | None]]()

    def run() -> None:
        try:
            results.put((check(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        reason, error = results.get(timeout=seconds)
    except Empty:
        return f"has not answered completely after {seconds:g} s: start it again, or set MLFLOW_TRACKING_URI"
    if error:
        raise error
    return reason


def _database_error(url: SplitResult) -> str | None:
    try:
        with _connect(url):
            return None
    except socket.gaierror:
        return _unknown_host(url)
    except OSError as error:
        return f"does not answer ({error.strerror or error}): {_START_SERVER}"


def _mlflow_error(uri: str, patience: Patience) -> str | None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    options = {"timeout": (_CONNECT_SECONDS, patience.response), "max_retries": 0, "raise_on_status": False}

    def request() -> "Response":
        return http_request(get_default_host_creds(uri), _REQUEST_PATH, "GET", params={"max_results": 1}, **options)

    try:
        response = request()
        for pause in patience.pauses:
            if response.status_code not in _BUSY_STATUSES:
                break
            time.sleep(pause)
            response = request()
    except MlflowException as error:
        if reason := _request_error(urlsplit(uri), error.__context__):
            return reason
        raise
    return _response_error(urlsplit(uri), response)


def _request_error(url: SplitResult, error: BaseException | None) -> str | None:
    from requests.exceptions import ConnectionError
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, ReadTimeoutError, SSLError

    if not isinstance(error, ConnectionError):
        return None
    match cause := getattr(error.args[0], "reason", error):
        case NameResolutionError():
            return _unknown_host(url)
        case ReadTimeoutError():
            return "accepts connections but does not answer: start it again, or set MLFLOW_TRACKING_URI"
        case ConnectTimeoutError():
            return f"does not answer, nothing listens at this address: {_START_SERVER}"
        case SSLError() if not _speaks_tls(url):
            return _USE_HTTP
        case SSLError():
            return f"has a certificate that is not trusted ({' '.join(map(str, cause.args))}): {_TRUST_CERTIFICATE}"
    return _USE_HTTPS if url.scheme == "http" and _speaks_tls(url) else _NOT_MLFLOW


def _response_error(url: SplitResult, response: "Response") -> str | None:
    target = urlsplit(response.url)
    if response.history and (target.scheme, target.hostname) != (url.scheme, url.hostname):
        host = target.netloc.rpartition("@")[2]
        return f"redirects to {target.scheme}://{host}: write that address in MLFLOW_TRACKING_URI"
    if response.status_code in (401, 403):
        return CREDENTIALS
    if response.status_code == 429:
        return "has too many requests (status 429): try again later"
    if response.status_code >= 500:
        return f"fails with status {response.status_code}: check its log, or set MLFLOW_TRACKING_URI"
    if response.status_code == 400 and url.scheme == "http" and _speaks_tls(url):
        return _USE_HTTPS
    try:
        content = response.json()
    except ValueError:
        return _NOT_MLFLOW
    is_mlflow = response.ok and isinstance(content, dict) and content.keys() <= {"experiments", "next_page_token"}
    return None if is_mlflow else _NOT_MLFLOW


def _unknown_host(url: SplitResult) -> str:
    return f"cannot be found, the host {url.hostname} is unknown: set MLFLOW_TRACKING_URI"


def _speaks_tls(url: SplitResult) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connect(url) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False


def _connect(url: SplitResult) -> socket.socket:
    return socket.create_connection((url.hostname or "", _port(url)), _CONNECT_SECONDS)


def _port(url: SplitResult) -> int:
    """Return the port of an address; 0 for a scheme without a default port."""
    return url.port or _PORTS.get(url.scheme.partition("+")[0], 0)
