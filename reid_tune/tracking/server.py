"""Whether a server answers at a store's address, as MLflow, and this user."""

import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from requests import Response

__all__ = ["CREDENTIALS", "server_error"]

CONNECT, ANSWER = 2.0, 3.0  # seconds that a server gets to accept a connection, and to answer
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
ASKED = "/api/2.0/mlflow/experiments/search"
CREDENTIALS = "refuses this user: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
START = "start it, or set MLFLOW_TRACKING_URI"
TLS = "speaks TLS: write https:// in MLFLOW_TRACKING_URI"
PLAIN = "speaks no TLS: write http:// in MLFLOW_TRACKING_URI"
CERTIFICATES = (
    "name its authority's in MLFLOW_TRACKING_SERVER_CERT_PATH, or set MLFLOW_TRACKING_INSECURE_TLS=true to trust it"
)
OTHER = "is no MLflow server: check its port and path, and set MLFLOW_TRACKING_URI"


def server_error(uri: str) -> str | None:
    """What is wrong with the server at a store's address, as the rest of a sentence, or None; also where there is none.

    MLflow's server is asked as its client would ask it, with its variables for users, certificates and proxies.
    Of a database's it is known only whether somebody listens.

    Raises:
        Exception: what MLflow raises, where it is none of the usual faults.
    """
    place = urlsplit(uri)
    if place.scheme in ("http", "https"):
        return _mlflow_fault(uri)
    return _silent(place) if place.hostname and _port(place) else None


def _silent(place: SplitResult) -> str | None:
    try:
        with _connected(place):
            return None
    except socket.gaierror:
        return _unknown(place)
    except OSError as error:
        return f"does not answer ({error.strerror or error}): {START}"


def _mlflow_fault(uri: str) -> str | None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    limits = {"timeout": (CONNECT, ANSWER), "max_retries": 0, "raise_on_status": False}
    try:
        answer = http_request(get_default_host_creds(uri), ASKED, "GET", params={"max_results": 1}, **limits)
    except MlflowException as error:
        if reason := _broken(urlsplit(uri), error.__context__):
            return reason
        raise
    return _wrong_answer(urlsplit(uri), answer)


def _broken(place: SplitResult, error: BaseException | None) -> str | None:
    from requests.exceptions import ConnectionError
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, ReadTimeoutError, SSLError

    if not isinstance(error, ConnectionError):
        return None
    match cause := getattr(error.args[0], "reason", error):
        case NameResolutionError():
            return _unknown(place)
        case ReadTimeoutError():
            return "accepts connections but does not answer: start it again, or set MLFLOW_TRACKING_URI"
        case ConnectTimeoutError():
            return f"does not answer, nobody listens there: {START}"
        case SSLError() if not _speaks_tls(place):
            return PLAIN
        case SSLError():
            return f"has no certificate that is trusted here ({' '.join(map(str, cause.args))}): {CERTIFICATES}"
    return TLS if place.scheme == "http" and _speaks_tls(place) else OTHER


def _wrong_answer(place: SplitResult, answer: "Response") -> str | None:
    last = urlsplit(answer.url)
    if answer.history and (last.scheme, last.hostname) != (place.scheme, place.hostname):
        there = last.netloc.rpartition("@")[2]
        return f"sends on to {last.scheme}://{there}: write that address in MLFLOW_TRACKING_URI"
    if answer.status_code in (401, 403):
        return CREDENTIALS
    if answer.status_code >= 500:
        return f"is out of order (status {answer.status_code}): look at its log, or set MLFLOW_TRACKING_URI"
    if answer.status_code == 400 and place.scheme == "http" and _speaks_tls(place):
        return TLS
    try:
        content = answer.json()
    except ValueError:
        return OTHER
    found = answer.ok and isinstance(content, dict) and content.keys() <= {"experiments", "next_page_token"}
    return None if found else OTHER


def _unknown(place: SplitResult) -> str:
    return f"cannot be found, no host {place.hostname} is known: set MLFLOW_TRACKING_URI"


def _speaks_tls(place: SplitResult) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connected(place) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _connected(place: SplitResult) -> socket.socket:
    return socket.create_connection((place.hostname or "", _port(place)), CONNECT)


def _port(place: SplitResult) -> int:
    """The port of an address; 0 for kinds that have none of their own."""
    return place.port or PORTS.get(place.scheme.partition("+")[0], 0)
