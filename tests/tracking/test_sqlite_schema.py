import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from reid_tune.errors import InputError
from reid_tune.tracking import sqlite_schema
from reid_tune.tracking.sqlite_schema import file_error
from reid_tune.tracking.store import client

OLD = "7f2a7d5fae7d"  # MLflow 2.4
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of MLflow 2.4 with one run, made by MLflow's own migrations."""
    import sqlalchemy
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    engine.dispose()
    command.upgrade(_get_alembic_config(f"sqlite:///{path}"), OLD)
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'past', 'active')")
        columns = "run_uuid, name, user_id, source_type, status, start_time, lifecycle_stage, experiment_id"
        store.execute(f"INSERT INTO runs ({columns}) VALUES ('abc', 'kept', 'me', 'LOCAL', 'FINISHED', 5, 'active', 7)")
        store.execute("INSERT INTO params (key, value, run_uuid) VALUES ('lr', '0.1', 'abc')")
    return path


@pytest.fixture
def old(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "mlflow.db"))


@pytest.fixture
def current(store: str, tmp_path: Path) -> Path:
    return Path(shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "mlflow.db"))


def test_an_older_store_is_not_changed_and_the_command_that_upgrades_it_is_named(
    old: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = old.read_bytes()
    hint = f"was made by an older MLflow: copy the file, then upgrade it with 'mlflow db upgrade sqlite:///{old}'"
    with pytest.raises(InputError, match=hint):
        client(f"sqlite:///{old}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old}")
    status, _, err = command("ui")
    assert status == 2 and hint in err
    assert old.read_bytes() == before


@pytest.mark.integration
def test_the_named_command_upgrades_the_store(old: Path) -> None:
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{old}"], check=True)
    assert file_error(old) is None
    run = client(f"sqlite:///{old}").get_run("abc")
    assert (run.info.run_name, run.info.experiment_id, run.data.params) == ("kept", "7", {"lr": "0.1"})


def test_a_newer_store_needs_a_newer_mlflow(current: Path) -> None:
    assert file_error(current) is None
    with closing(sqlite3.connect(current)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert "was made by a newer MLflow than 3.17" in str(file_error(current))
    with pytest.raises(InputError, match="newer MLflow"):
        client(f"sqlite:///{current}")


def test_files_that_are_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    with closing(sqlite3.connect(tmp_path / "foreign")) as other, other:
        other.execute("CREATE TABLE mine (x)")
    (tmp_path / "empty").touch()
    assert "is not an SQLite database (file is not a database)" in str(file_error(tmp_path / "text"))
    assert "but not a complete MLflow store" in str(file_error(tmp_path / "foreign"))
    assert "is a folder" in str(file_error(tmp_path))
    assert f"cannot be created: {tmp_path}/text is not a folder" in str(file_error(tmp_path / "text" / "mlflow.db"))
    assert "File name too long" in str(file_error(tmp_path / ("x" * 300)))
    assert file_error(tmp_path / "empty") is file_error(tmp_path / "new" / "folder" / "mlflow.db") is None
    assert not (tmp_path / "new").exists()


# Root may write everything, so that it becomes somebody else, who could not load the modules.
LOOK = """
import os, sys
from reid_tune.tracking.store import connection_error
connection_error(sys.argv[1])
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for uri in sys.argv[1:]:
    print(connection_error(uri))
"""


def test_the_revisions_are_those_of_alembic() -> None:
    import mlflow
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    current, *earlier = (revision.revision for revision in script.walk_revisions())
    assert sqlite_schema._revisions()[0] == current and set(sqlite_schema._revisions()[1:]) == set(earlier)


@pytest.mark.integration
def test_a_store_that_cannot_be_written(current: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        paths = [top / "closed" / "file.db", top / "folder" / "file.db", top / "open" / "file.db"]
        for path, folder_mode, mode in zip(paths, (0o777, 0o555, 0o777), (0o444, 0o666, 0o666), strict=True):
            path.parent.mkdir()
            shutil.copy(current, path)
            path.chmod(mode)
            path.parent.chmod(folder_mode)
        paths.append(top / "folder" / "new" / "mlflow.db")
        command = [sys.executable, "-c", LOOK, *(f"sqlite:///{path}" for path in paths)]
        lines = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    denied = "cannot be written: permission denied on"
    first = f"the MLflow store sqlite:///{paths[0]} {denied} {paths[0]}; set MLFLOW_TRACKING_URI."
    assert (lines[0], lines[2]) == (first, "None")
    assert f"{denied} {top}/folder;" in lines[1], "SQLite writes a journal next to its file"
    assert f"{denied} {top}/folder;" in lines[3]


DYING = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")  # so that it writes into the file before it commits
connection.execute("BEGIN IMMEDIATE")
connection.executemany("INSERT INTO alembic_version VALUES (?)", [(f"{number:0>32}",) for number in range(2000)])
os._exit(9)
"""


def test_the_unfinished_write_of_a_process_that_died_is_rolled_back(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    client(f"sqlite:///{path}")
    assert subprocess.run([sys.executable, "-c", DYING, str(path)]).returncode == 9
    assert Path(f"{path}-journal").stat().st_size > 0
    assert file_error(path) is None
    assert client(f"sqlite:///{path}").search_experiments()
