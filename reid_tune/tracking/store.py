"""The MLflow store: its address, a quiet client, experiments, and its errors in one line."""

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from reid_tune.environment import set_defaults
from reid_tune.errors import InfrastructureError, InputError, ReidTuneError
from reid_tune.files import make_folder
from reid_tune.tracking import address, server, sqlite_schema

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "translate_errors",
    "client",
    "database",
    "experiment_id",
    "connection_error",
    "one_line",
    "redact",
    "is_permanent",
    "tracking_uri",
    "with_credentials",
]

SQLITE = "sqlite:///"
TOO_MUCH = (413, 414)  # HTTP of proxies: what is sent is too large
DENIED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")  # MLflow's names of 401 and 403
QUIET = {
    # Who calls tries again, and MLflow's own second try would create a run twice where a server is slow.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # A checkpoint has to arrive within it, on the server and in the store behind it.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else MLflow's own default; an SQLite path is absolute and holds in any folder."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    path = database(uri)
    return uri if path is None else f"{SQLITE}{path}"


def with_credentials(recorded: str) -> str:
    """The address that a log has without user name and password, with those of `tracking_uri` if it is that one."""
    current = tracking_uri()
    return current if redact(current) == recorded else recorded


def database(uri: str) -> Path | None:
    """The absolute file of an SQLite store; None for any other store."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def client(uri: str) -> "MlflowClient":
    """A client of a store; an SQLite store is created where there is none, which takes about two seconds.

    Raises:
        InputError: there can be no store at this address, or it is an SQLite file that cannot be used.
    """
    # MLflow itself would retry for minutes before it says so, or upgrade an older store halfway.
    if reason := _local_error(uri):
        raise InputError(_sentence(uri, reason))
    set_defaults(QUIET)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    path = database(uri)
    if path and not path.exists():
        _create_database(path)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def connection_error(uri: str) -> str | None:
    """What is wrong with a store and what to do, in one sentence, or None; nothing is created.

    Takes some four seconds at most where a server does not answer, and longer where no name server does.
    """
    try:
        reason = _local_error(uri) or server.server_error(uri)
    except Exception as error:  # whatever an odd address brings about in MLflow
        reason = f"does not answer as it should ({one_line(error)}): check MLFLOW_TRACKING_URI"
    return reason and _sentence(uri, reason)


def _local_error(uri: str) -> str | None:
    path = database(uri)
    return sqlite_schema.file_error(path) if path else address.address_error(uri)


def _sentence(uri: str, reason: str) -> str:
    return f"the MLflow store {redact(uri)} {reason}."


def _create_database(path: Path) -> None:
    """Let MLflow create its tables in a temporary file: a process that dies in its migrations leaves half of them."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory(dir=make_folder(path.parent), prefix=f".{path.name}.") as folder:
        new = Path(folder) / path.name
        MlflowClient(tracking_uri=f"{SQLITE}{new}").search_experiments(max_results=1)
        with suppress(FileExistsError):
            os.link(new, path)


def experiment_id(connection: "MlflowClient", name: str) -> str:
    """The experiment of a name: found, brought back where it was deleted, or created.

    Artifacts of an SQLite store lie beside it in `mlartifacts/NAME`, an absolute place that any `mlflow ui` finds.
    """
    found = connection.get_experiment_by_name(name)
    if found is None:
        path = database(connection.tracking_uri)
        place = str(path.parent / "mlartifacts" / name) if path else None
        return connection.create_experiment(name, place)
    if found.lifecycle_stage == "deleted":
        connection.restore_experiment(found.experiment_id)
    return found.experiment_id


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn the errors of a store within the block into one sentence.

    Raises:
        InfrastructureError: the store is away, full or broken.
    """
    try:
        yield
    except ReidTuneError:
        raise
    except Exception as error:  # MLflow's, SQLAlchemy's, and those of each kind of artifact store, have no common base
        message = f"the MLflow store {redact(uri)} does not answer as it should: {one_line(error)}."
        raise InfrastructureError(message) from None


def is_permanent(error: Exception, after_retries: bool = False) -> bool:
    """Whether a store has answered and will not ever accept this, as opposed to being away for a while.

    Args:
        after_retries: Whether it has failed several times. MLflow answers BAD_REQUEST also for temporary faults of its
            database.
    """
    code, status = getattr(error, "error_code", None), getattr(getattr(error, "response", None), "status_code", None)
    never = code == "INVALID_PARAMETER_VALUE" or status in TOO_MUCH
    return isinstance(error, LookupError | TypeError) or never or (after_retries and code == "BAD_REQUEST")


def one_line(error: Exception) -> str:
    """The first 300 characters of an error, without passwords and full stop; what is not ours begins with its kind."""
    text = " ".join(str(error).split())
    if not isinstance(error, ReidTuneError):
        text = f"{type(error).__name__}: {text}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if getattr(error, "error_code", None) in DENIED or status in (401, 403):
        text = f"it {server.CREDENTIALS} ({text})"
    return redact(text)[:300].rstrip(".")


def redact(text: str) -> str:
    """Text without the user names and passwords of its addresses; a password may hold an `@`, `/` or `?`."""
    text = re.sub(r"://[^/\s][^\s]*@", "://", text)
    secret = r"(?:password|pwd|token|secret|sig|signature|credential|odbc_connect)"
    return re.sub(rf"([?&][\w-]*{secret}=)[^&\s]*", r"\1", text, flags=re.IGNORECASE)
