"""The MLflow store: its address, a client without log output, experiments, and errors in one line."""

import glob
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from reid_tune.environment import set_defaults
from reid_tune.errors import InfrastructureError, InputError, ReidTuneError
from reid_tune.files import make_folder
from reid_tune.storage.temporary_folder import locked_folder, remove_leftovers
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
    "open_client",
    "redact",
    "is_permanent",
    "tracking_uri",
    "with_credentials",
]

_SQLITE = "sqlite:///"
_TOO_LARGE = (413, 414)  # HTTP status of proxies: the request is too large
_DENIED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")  # MLflow's names of 401 and 403
_CLIENT_SETTINGS = {
    # Callers retry, and a retry by MLflow would create a run twice on a slow server.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # Seconds in which a checkpoint has to arrive on the server and in its artifact store.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or MLflow's own default; the path of an SQLite file is absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    path = database(uri)
    return uri if path is None else f"{_SQLITE}{path}"


def with_credentials(recorded: str) -> str:
    """Return a log's address, which has no user name and password, with those of `tracking_uri` if that is the same."""
    current = tracking_uri()
    return current if redact(current) == recorded else recorded


def database(uri: str) -> Path | None:
    """Return the absolute path of an SQLite store; None for any other store."""
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None


def client(uri: str) -> "MlflowClient":
    """Return a client of a store; a missing SQLite store is created, which takes about two seconds.

    Raises:
        InputError: the address cannot be that of a store, or an SQLite file cannot be used.
    """
    # MLflow itself would retry for minutes before it raises an error, or upgrade an older store halfway.
    if reason := _local_error(uri):
        raise InputError(_full_message(uri, reason))
    set_defaults(_CLIENT_SETTINGS)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if path := database(uri):
        remove_leftovers(path.parent, _unfinished_names(path))
        if not path.exists():
            _create_database(path)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def open_client(uri: str) -> "MlflowClient":
    """Return a client of a store that answers; without this check each request would wait for a minute.

    A server that does not answer is waited for 30 seconds, and one that is busy is asked again.

    Raises:
        InputError: the address cannot be that of a store, or an SQLite file cannot be used.
        InfrastructureError: the server is unreachable, or something else answers there.
    """
    if not _local_error(uri) and (reason := connection_error(uri, server.PATIENT)):
        raise InfrastructureError(reason)
    return client(uri)


def connection_error(uri: str, patience: server.Patience = server.QUICK) -> str | None:
    """Describe in one sentence why a store cannot be used and what to do; None if it can. Nothing is created.

    By default this takes about four seconds if a server does not answer, and at most ten.
    """
    try:
        reason = _local_error(uri) or server.server_error(uri, patience)
    except Exception as error:  # MLflow may raise anything for an unusual address
        reason = f"does not answer as it should ({one_line(error)}): check MLFLOW_TRACKING_URI"
    return reason and _full_message(uri, reason)


def _local_error(uri: str) -> str | None:
    path = database(uri)
    return sqlite_schema.file_error(path) if path else address.address_error(uri)


def _full_message(uri: str, reason: str) -> str:
    return f"the MLflow store {redact(uri)} {reason}."


def _create_database(path: Path) -> None:
    """Let MLflow create its tables in a temporary file: a process that dies in its migrations leaves half of them."""
    from mlflow import MlflowClient

    with locked_folder(make_folder(path.parent), f".{path.name}.", _unfinished_names(path)) as folder:
        new = folder / path.name
        MlflowClient(tracking_uri=f"{_SQLITE}{new}").search_experiments(max_results=1)
        with suppress(FileExistsError):
            os.link(new, path)


def _unfinished_names(path: Path) -> str:
    """Return the pattern of the temporary folders in which a database is created."""
    return f".{glob.escape(path.name)}.{'?' * 8}"


def experiment_id(connection: "MlflowClient", name: str) -> str:
    """Return the id of an experiment, which is created if missing, and restored if deleted.

    Artifacts of an SQLite store are stored next to it in `mlartifacts/NAME`, by an absolute path that is valid for any
    `mlflow ui`.
    """
    from mlflow.exceptions import MlflowException

    experiment = connection.get_experiment_by_name(name)
    if experiment is None:
        path = database(connection.tracking_uri)
        artifacts = str(path.parent / "mlartifacts" / name) if path else None
        try:
            return connection.create_experiment(name, artifacts)
        except MlflowException:
            # Another process may have created it at the same moment.
            experiment = connection.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        connection.restore_experiment(experiment.experiment_id)
    return experiment.experiment_id


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn errors of a store within the block into one sentence.

    Raises:
        InfrastructureError: the store is unreachable, full or broken.
    """
    try:
        yield
    except ReidTuneError:
        raise
    except Exception as error:  # MLflow's, SQLAlchemy's, and those of each kind of artifact store, have no common base
        message = f"the MLflow store {redact(uri)} does not answer as it should: {one_line(error)}."
        raise InfrastructureError(message) from None


def is_permanent(error: Exception, after_retries: bool = False) -> bool:
    """Whether a store has answered and will never accept the request, in contrast to a temporary failure.

    Args:
        after_retries: Whether the request has failed several times. MLflow answers BAD_REQUEST also for temporary
            failures of its database.
    """
    code, status = getattr(error, "error_code", None), getattr(getattr(error, "response", None), "status_code", None)
    is_rejected = code == "INVALID_PARAMETER_VALUE" or status in _TOO_LARGE
    return isinstance(error, LookupError | TypeError) or is_rejected or (after_retries and code == "BAD_REQUEST")


def one_line(error: Exception) -> str:
    """Return the first 300 characters of an error without passwords; errors of libraries begin with their type."""
    text = " ".join(str(error).split())
    if not isinstance(error, ReidTuneError):
        text = f"{type(error).__name__}: {text}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if getattr(error, "error_code", None) in _DENIED or status in (401, 403):
        text = f"it {server.CREDENTIALS} ({text})"
    return redact(text)[:300].rstrip(".")


def redact(text: str) -> str:
    """Return a text without the user names and passwords of its addresses; a password may contain `@`, `/` or `?`."""
    text = re.sub(r"://[^/\s][^\s]*@", "://", text)
    secret = r"(?:password|pwd|token|secret|sig|signature|credential|odbc_connect)"
    return re.sub(rf"([?&][\w-]*{secret}=)[^&\s\"]*", r"\1", text, flags=re.IGNORECASE)
