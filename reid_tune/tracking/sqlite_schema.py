"""The file of an SQLite store: whether it can be used, and which MLflow made it."""

import os
import re
import sqlite3
from contextlib import closing
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

__all__ = ["file_error"]

BUSY_SECONDS = 3.0  # for which another process may finish its writing
_REVISION = re.compile(r'^revision = "(\w+)"\ndown_revision = (?:"(\w+)"|None)$', re.M)  # in a migration


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
    version = metadata.version("mlflow")
    return f"was made by a newer MLflow than {version}, which is installed here: install that one, or name another file"


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
    """Revisions that the installed MLflow knows, the current one first.

    They are read from the text of its migrations, which take half a second to import.
    """
    package = find_spec("mlflow")
    assert package and package.origin
    files = (Path(package.origin).parent / "store" / "db_migrations" / "versions").glob("*.py")
    before = dict(match for file in files for match in _REVISION.findall(file.read_text(encoding="utf-8")))
    (current,) = before.keys() - before.values()
    return [current, *(before.keys() - {current})]
