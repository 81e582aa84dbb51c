"""Check of a store's address without a connection."""

from urllib.parse import urlsplit

__all__ = ["address_error"]

_DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
_HINT = "write http://HOST:PORT for a server, or sqlite:///FILE"


def address_error(uri: str) -> str | None:
    """Describe why an address cannot be that of a store, as the rest of a sentence; None if it can."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import ArgumentError

    try:
        parts = urlsplit(uri)
        if parts.scheme in ("http", "https"):
            return None if parts.hostname and parts.port != 0 else _invalid_address(uri)
        if parts.scheme.partition("+")[0] in _DATABASES:
            return _database_error(uri)
        MlflowClient(tracking_uri=uri, registry_uri=uri)
        return None
    except (ValueError, ArgumentError):
        return _invalid_address(uri)
    except MlflowException:
        if parts.scheme in ("", "file"):
            return f"would be a folder, and MLflow no longer stores runs in folders: {_HINT}"
        return f"is not of a kind that MLflow supports: {_HINT}"


def _invalid_address(uri: str) -> str:
    password = "; in a password write @ as %40, / as %2F, ? as %3F and # as %23" if "@" in uri else ""
    return f"is not a valid address: {_HINT}{password}"


def _database_error(uri: str) -> str | None:
    from sqlalchemy import make_url

    parsed = make_url(uri)
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        return f"needs the Python module {error.name}, which is not installed here: install it, or name a server"
    in_memory = parsed.get_backend_name() == "sqlite" and not parsed.database
    return "would be lost with this process: write sqlite:///FILE" if in_memory else None
