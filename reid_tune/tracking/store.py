"""The MLflow store: its address, a quiet client, experiments, and its errors in one line."""

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import make_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "answering",
    "client",
    "database",
    "experiment_id",
    "one_line",
    "public",
    "reachable",
    "refused",
    "tracking_uri",
    "with_credentials",
]

CONNECT = 3.0  # seconds that a server gets to accept a connection
SQLITE = "sqlite:///"
# The UI opens such an experiment with its runs, not with its pages about language models.
KIND = {"mlflow.experimentKind": "custom_model_development"}
QUIET = {
    # One unanswered call takes about ten seconds instead of four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
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
    return current if public(current) == recorded else recorded


def database(uri: str) -> Path | None:
    """The absolute file of an SQLite store; None for any other store."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def client(uri: str) -> "MlflowClient":
    """A client of a store; an SQLite store is created where there is none, which takes about two seconds.

    Raises:
        InputError: the folder of an SQLite store cannot be written.
    """
    path = database(uri)
    # MLflow itself would retry for minutes before it says so.
    if path and not os.access(make_folder(path.parent), os.W_OK):
        raise InputError(f"cannot write the MLflow store {path}: permission denied; set MLFLOW_TRACKING_URI.")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if path and not path.exists():
        _create_database(path)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _create_database(path: Path) -> None:
    """Let MLflow create its tables in a temporary file: a process that dies in its migrations leaves half of them."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
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
        return connection.create_experiment(name, place, tags=KIND)
    if found.lifecycle_stage == "deleted":
        connection.restore_experiment(found.experiment_id)
    return found.experiment_id


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn the errors of a store within the block into one sentence.

    Raises:
        InfrastructureError: the store is away, full or broken.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        message = f"the MLflow store {public(uri)} does not answer as it should: {one_line(error)}"
        raise InfrastructureError(message) from None


def reachable(uri: str) -> bool:
    """Whether something listens where an HTTP store should be; other stores are made when they are needed."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname, port), timeout=CONNECT):
            return True
    except (OSError, ValueError):
        return False


def refused(error: Exception) -> bool:
    """Whether a store has answered and will not ever accept this, as opposed to being away for a while."""
    code = getattr(error, "error_code", None)
    return isinstance(error, LookupError | TypeError) or code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}


def one_line(error: Exception) -> str:
    """The kind and the first 300 characters of an error, without passwords."""
    return public(f"{type(error).__name__}: {' '.join(str(error).split())}")[:300]


def public(text: str) -> str:
    """Text without the user names and passwords of its addresses; a password may hold an `@`."""
    text = re.sub(r"://[^/\s]*@", "://", text)
    return re.sub(r"([?&]\w*(?:password|token|secret)=)[^&\s]*", r"\1", text, flags=re.IGNORECASE)
