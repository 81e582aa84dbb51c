"""The file of an SQLite store: whether it can be used, and which MLflow made it."""

import os
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

__all__ = ["file_error"]

BUSY_SECONDS = 3.0  # for which another process may finish its writing


def file_error(path: Path) -> str | None:
    """Describe why a file cannot be a store, as the rest of a sentence; None if it can be used or created."""
    try:
        if path.is_dir():
            return "is a folder: name a file in it"
        present = next(ancestor for ancestor in (path, *path.parents) if ancestor.exists())
        if not path.exists() and not present.is_dir():
            return f"cannot be created: {present} is not a folder; set MLFLOW_TRACKING_URI"
        # SQLite writes a journal next to its file.
        for target in (path, path.parent) if present == path else (present,):
            if not os.access(target, os.R_OK | os.W_OK):
                return f"cannot be written: permission denied on {target}; set MLFLOW_TRACKING_URI"
        return _content_error(path) if present == path else None
    except OSError as error:
        return f"cannot be used: {error.strerror}; set MLFLOW_TRACKING_URI"
    except sqlite3.OperationalError as error:
        return f"cannot be read ({error}): try again, or name another file"
    except sqlite3.Error as error:
        return f"is not an SQLite database ({error}): name another file"


def _content_error(path: Path) -> str | None:
    revision, tables = _revision(path), _tables(path)
    if not tables or revision == _revisions()[0]:
        return None
    if revision is None:
        return "is an SQLite database, but not a complete MLflow store: name another file"
    if revision in _revisions():
        return (
            "was made by an older MLflow: copy the file, then upgrade it with "
            f"'mlflow db upgrade sqlite:///{path}' while no other program uses it"
        )
    from mlflow.version import VERSION

    return f"was made by a newer MLflow than {VERSION}, which is installed here: install that one, or name another file"


def _tables(path: Path) -> set[str]:
    return {name for (name,) in _rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def _revision(path: Path) -> str | None:
    """Revision of a store's tables; None if MLflow has created none, or not all of them."""
    if "alembic_version" not in _tables(path):
        return None
    return next((version for (version,) in _rows(path, "SELECT version_num FROM alembic_version")), None)


def _rows(path: Path, query: str) -> list[tuple[str]]:
    with closing(_reader(path)) as connection:
        return connection.execute(query).fetchall()


def _reader(path: Path) -> sqlite3.Connection:
    # Opened for writing, so that SQLite rolls back the unfinished write of a process that died.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)


@cache
def _revisions() -> list[str]:
    """Revisions that the installed MLflow knows, the current one first."""
    import mlflow
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return [revision.revision for revision in script.walk_revisions()]
