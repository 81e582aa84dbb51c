"""The file of an SQLite store: whether it can be used, of which MLflow it is, and its upgrade."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from reid_tune.errors import InfrastructureError, InputError

__all__ = ["fault", "outdated", "upgrade"]

PATIENCE = 3.0  # seconds that another process gets to end what it writes


def fault(path: Path) -> str | None:
    """What is wrong with a file that is or will be a store, as the rest of a sentence, or None."""
    try:
        if path.is_dir():
            return "is a folder: name a file in it"
        present = next(place for place in (path, *path.parents) if place.exists())
        if not path.exists() and not present.is_dir():
            return f"cannot be made: {present} is no folder; set MLFLOW_TRACKING_URI"
        # SQLite writes a journal beside its file.
        for place in (path, path.parent) if present == path else (present,):
            if not os.access(place, os.R_OK | os.W_OK):
                return f"cannot be written: permission denied on {place}; set MLFLOW_TRACKING_URI"
        return _content_fault(path) if present == path else None
    except OSError as error:
        return f"cannot be used: {error.strerror}; set MLFLOW_TRACKING_URI"
    except sqlite3.OperationalError as error:
        return f"cannot be read ({error}): try again, or name another file"
    except sqlite3.Error as error:
        return f"is no SQLite database ({error}): name another file"


def outdated(path: Path) -> bool:
    """Whether an older MLflow has made a store, so that `upgrade` is for it; the file may be anything or missing."""
    try:
        return path.is_file() and _revision(path) in _revisions()[1:]
    except (OSError, sqlite3.Error):
        return False


def upgrade(path: Path) -> Path:
    """Give an older store the tables of this MLflow, and return the file that keeps it as it was.

    A copy is upgraded, and takes the store's place in one step: whatever happens before, the store is as it was.

    Raises:
        InputError: another file has the name of the one that would be kept.
        InfrastructureError: the store is in use, the disk is full, or MLflow cannot upgrade it.
    """
    kept = path.with_name(f"{path.name}.before-{_revision(path)}")
    # One that is the store itself is left by an upgrade that was ended at its last step.
    if kept.exists() and not kept.samefile(path):
        raise InputError(f"cannot upgrade {path}: there is {kept} of an earlier upgrade; move it away.")
    try:
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
            closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as store,
        ):
            # What another process wrote from here on would be lost.
            store.execute("BEGIN IMMEDIATE")
            new = Path(folder) / path.name
            with closing(_reader(path)) as before, closing(sqlite3.connect(new)) as copy:
                before.backup(copy)
            _migrate(new)
            shutil.copystat(path, new)
            if not kept.exists():
                os.link(path, kept)
            os.replace(new, path)
    except (OSError, sqlite3.Error, subprocess.CalledProcessError) as error:
        raise InfrastructureError(f"cannot upgrade {path}, which is as it was: {_cause(error)}.") from None
    return kept


def _migrate(path: Path) -> None:
    # In a process of its own: MLflow's migrations change how this one logs.
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{path}"]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _cause(error: Exception) -> str:
    if not isinstance(error, subprocess.CalledProcessError):
        return str(error)
    named = re.findall(r"^[\w.]+: .*$", error.stderr, re.MULTILINE)  # of a traceback, the errors' own lines
    return named[-1] if named else f"MLflow ended with status {error.returncode}"


def _content_fault(path: Path) -> str | None:
    found, tables = _revision(path), _tables(path)
    if not tables or found == _revisions()[0]:
        return None
    if found is None:
        return "is an SQLite database, but no whole MLflow store: name another file"
    if found in _revisions():
        return "was made by an older MLflow: upgrade it with 'reid-tune ui --upgrade'"
    from mlflow.version import VERSION

    return f"was made by a newer MLflow than {VERSION}, which is installed here: install that one, or name another file"


def _tables(path: Path) -> set[str]:
    return {name for (name,) in _rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def _revision(path: Path) -> str | None:
    """The revision of a store's tables; None where MLflow has made none, or not all."""
    if "alembic_version" not in _tables(path):
        return None
    return next((version for (version,) in _rows(path, "SELECT version_num FROM alembic_version")), None)


def _rows(path: Path, query: str) -> list[tuple[str]]:
    with closing(_reader(path)) as connection:
        return connection.execute(query).fetchall()


def _reader(path: Path) -> sqlite3.Connection:
    # For writing too, though nothing is written: what a process that died has left half done is rolled back.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)


@cache
def _revisions() -> list[str]:
    """The revisions that the installed MLflow knows, its own first."""
    import mlflow
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return [each.revision for each in script.walk_revisions()]
