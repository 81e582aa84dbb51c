import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.tracking import sqlite_schema as schema
from reid_tune.tracking.sqlite_schema import fault, outdated, upgrade
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


def migrate_here(path: Path) -> None:
    """The migrations of `mlflow db upgrade`, without the seconds that its process takes."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config

    command.upgrade(_get_alembic_config(f"sqlite:///{path}"), "heads")


@pytest.fixture(params=["here", pytest.param("process", marks=pytest.mark.integration)])
def migrations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "here":
        monkeypatch.setattr(schema, "_migrate", migrate_here)


@pytest.fixture
def current(store: str, tmp_path: Path) -> Path:
    return Path(shutil.copy(store.removeprefix("sqlite:///"), tmp_path / "mlflow.db"))


@pytest.mark.usefixtures("migrations")
def test_an_older_store_is_upgraded_and_kept_as_it_was(old: Path) -> None:
    before = old.read_bytes()
    old.chmod(0o600)
    assert outdated(old) and str(fault(old)).endswith("upgrade it with 'reid-tune ui --upgrade'")
    kept = upgrade(old)
    assert (kept.name, kept.read_bytes()) == (f"mlflow.db.before-{OLD}", before)
    assert sorted(path.name for path in old.parent.iterdir()) == ["mlflow.db", kept.name]
    assert old.stat().st_mode & 0o777 == 0o600
    assert fault(old) is None and not outdated(old)
    run = client(f"sqlite:///{old}").get_run("abc")
    assert (run.info.run_name, run.info.experiment_id, run.data.params) == ("kept", "7", {"lr": "0.1"})


def test_mlflow_does_not_touch_an_older_store(old: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(InputError, match="was made by an older MLflow: upgrade it with 'reid-tune ui --upgrade'"):
        client(f"sqlite:///{old}")
    assert old.read_bytes() == before


@pytest.mark.integration
def test_an_upgrade_that_fails_leaves_the_store(old: Path) -> None:
    with closing(sqlite3.connect(old)) as store, store:
        store.execute("DROP TABLE model_versions")
    before = old.read_bytes()
    with pytest.raises(InfrastructureError, match=r"cannot upgrade .*mlflow.db, which is as it was: .*model_versions"):
        upgrade(old)
    assert old.read_bytes() == before
    assert list(old.parent.iterdir()) == [old]


def test_a_store_in_use_is_not_upgraded(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_tune.tracking.sqlite_schema.PATIENCE", 0.1)
    with closing(sqlite3.connect(old, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InfrastructureError, match="database is locked"):
            upgrade(old)
    assert list(old.parent.iterdir()) == [old]


def test_what_an_earlier_upgrade_kept_is_not_overwritten(old: Path) -> None:
    kept = old.with_name(f"mlflow.db.before-{OLD}")
    kept.write_text("precious")
    with pytest.raises(InputError, match="there is .* of an earlier upgrade; move it away"):
        upgrade(old)
    assert kept.read_text() == "precious" and outdated(old)


def test_a_newer_store_needs_a_newer_mlflow(current: Path) -> None:
    assert fault(current) is None
    with closing(sqlite3.connect(current)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert "was made by a newer MLflow than 3.17" in str(fault(current))
    assert not outdated(current)
    with pytest.raises(InputError, match="newer MLflow"):
        client(f"sqlite:///{current}")


def test_files_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    with closing(sqlite3.connect(tmp_path / "foreign")) as other, other:
        other.execute("CREATE TABLE mine (x)")
    (tmp_path / "empty").touch()
    assert "is no SQLite database (file is not a database)" in str(fault(tmp_path / "text"))
    assert "but no whole MLflow store" in str(fault(tmp_path / "foreign"))
    assert "is a folder" in str(fault(tmp_path))
    assert f"cannot be made: {tmp_path}/text is no folder" in str(fault(tmp_path / "text" / "mlflow.db"))
    assert "File name too long" in str(fault(tmp_path / ("x" * 300)))
    assert fault(tmp_path / "empty") is fault(tmp_path / "new" / "folder" / "mlflow.db") is None
    assert not (tmp_path / "new").exists()
    assert not any(outdated(tmp_path / name) for name in ("text", "foreign", "empty", "missing"))


# Root may write everything, so that it becomes somebody else, who could not load the modules.
LOOK = """
import os, sys
from reid_tune.tracking.store import fault
fault(sys.argv[1])
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for uri in sys.argv[1:]:
    print(fault(uri))
"""


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
        said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    denied = "cannot be written: permission denied on"
    first = f"the MLflow store sqlite:///{paths[0]} {denied} {paths[0]}; set MLFLOW_TRACKING_URI."
    assert (said[0], said[2]) == (first, "None")
    assert f"{denied} {top}/folder;" in said[1], "SQLite writes a journal beside its file"
    assert f"{denied} {top}/folder;" in said[3]


@pytest.mark.integration
def test_the_command_asks_in_a_terminal_and_a_no_changes_nothing(old: Path) -> None:
    before = old.read_bytes()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "reid_tune", "ui"]
    variables = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{old}", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE, text=True, env=variables)
    os.write(ours, b"n\n")
    _, said = process.communicate(timeout=120)
    assert f"{old} was made by an older MLflow. Stop all programs that use it. Upgrade it? [y/N]" in said
    assert "reid-tune ui --upgrade" in said
    assert (process.returncode, old.read_bytes()) == (2, before)


def test_the_command_does_not_ask_without_a_terminal(
    old: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old}")
    status, _, said = command("ui")
    assert status == 2 and said.endswith("upgrade it with 'reid-tune ui --upgrade'.\n") and "[y/N]" not in said


@pytest.mark.usefixtures("migrations")
def test_the_command_upgrades_where_it_is_told_to(
    old: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old}")
    status, _, said = command("ui", "--upgrade", "--port", 70000)  # no server starts there
    assert f"upgraded; the old store is kept as {old}.before-{OLD}" in said and "cannot use port 70000" in said
    assert status == 2 and fault(old) is None


DYING = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")  # so that it writes into the file before it commits
connection.execute("BEGIN IMMEDIATE")
connection.executemany("INSERT INTO alembic_version VALUES (?)", [(f"{number:0>32}",) for number in range(2000)])
os._exit(9)
"""


def test_what_a_process_that_died_has_left_half_written_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    client(f"sqlite:///{path}")
    assert subprocess.run([sys.executable, "-c", DYING, str(path)]).returncode == 9
    assert Path(f"{path}-journal").stat().st_size > 0
    assert fault(path) is None
    assert client(f"sqlite:///{path}").search_experiments()
