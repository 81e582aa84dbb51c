"""Whether an address can be a store's at all, as far as this machine can tell."""

from urllib.parse import urlsplit

__all__ = ["address_error"]

DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
KINDS = "write http://HOST:PORT for a server, or sqlite:///FILE"


def address_error(uri: str) -> str | None:
    """What is wrong with an address, as the rest of a sentence, or None."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import ArgumentError

    try:
        place = urlsplit(uri)
        if place.scheme in ("http", "https"):
            return None if place.hostname and place.port != 0 else _no_address(uri)
        if place.scheme.partition("+")[0] in DATABASES:
            return _database_fault(uri)
        MlflowClient(tracking_uri=uri, registry_uri=uri)
        return None
    except (ValueError, ArgumentError):
        return _no_address(uri)
    except MlflowException:
        if place.scheme in ("", "file"):
            return f"would be a folder, in which MLflow keeps no runs any more: {KINDS}"
        return f"is of no kind that MLflow can use here: {KINDS}"


def _no_address(uri: str) -> str:
    password = "; in a password write @ as %40, / as %2F, ? as %3F and # as %23" if "@" in uri else ""
    return f"is no address: {KINDS}{password}"


def _database_fault(uri: str) -> str | None:
    from sqlalchemy import make_url

    parsed = make_url(uri)
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        return f"needs the Python module {error.name}, which is not installed here: install it, or name a server"
    in_memory = parsed.get_backend_name() == "sqlite" and not parsed.database
    return "would be lost with this process: write sqlite:///FILE" if in_memory else None
