import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reid_tune.tracking
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.tracking import server
from reid_tune.tracking.sender import Sender, send_all
from reid_tune.tracking.store import (
    client,
    connection_error,
    database,
    experiment_id,
    one_line,
    redact,
    tracking_uri,
    translate_errors,
    with_credentials,
)


def test_mlflow_is_imported_only_when_used() -> None:
    folder = Path(reid_tune.tracking.__file__).parent
    modules = [path.relative_to(folder.parents[1]) for path in folder.rglob("*.py") if path.stem != "__init__"]
    assert len(modules) > 15
    program = "import sys\n" + "".join(f"import {'.'.join(path.with_suffix('').parts)}\n" for path in modules)
    program += "sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0


def test_the_default_store_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ("http://server:5000", "http://server:5000"),
        ("sqlite:////data/m.db", "sqlite:////data/m.db"),
        ("sqlite:///m.db", "sqlite:///{cwd}/m.db"),
    ],
)
def test_the_environment_wins(configured: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", configured)
    assert tracking_uri() == expected.format(cwd=tmp_path)


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be created: .*/file is not a folder"):
        client(f"sqlite:///{tmp_path}/file/mlflow.db")


KILLED = """
import os, signal, sys
from pathlib import Path
from reid_tune.tracking import store
path = Path(sys.argv[1])
with store.locked_folder(path.parent, f".{path.name}.", store._unfinished_names(path)) as folder:
    (folder / path.name).write_text("half of the tables")
    print(folder, flush=True)
    if sys.stdin.read() == "die":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("exists", [False, True], ids=["a new database", "one that another process has created"])
def test_what_a_process_that_was_killed_in_the_creation_has_left_is_removed_by_the_next_start(
    exists: bool, store: str, tmp_path: Path
) -> None:
    path = tmp_path / "[a] mlflow.db"
    others = [tmp_path / name for name in ("..mlflow.db.abcdefgh", f".{path.name}.notes", f".{path.name}")]
    for folder in others:
        folder.mkdir()
    if exists:
        shutil.copy(store.removeprefix("sqlite:///"), path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        unfinished = Path(process.stdout.readline().strip())
        client(f"sqlite:///{path}")
        assert unfinished.is_dir()  # its process lives
        process.communicate("die")
    assert process.returncode == -9 and unfinished.is_dir()
    client(f"sqlite:///{path}")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_an_experiment_is_made_once_and_comes_back_when_deleted(connection: Any, store: str) -> None:
    made = experiment_id(connection, "experiment")
    connection.delete_experiment(made)
    assert experiment_id(connection, "experiment") == made
    experiment = connection.get_experiment(made)
    folder = database(store)
    assert folder is not None
    assert (experiment.lifecycle_stage, experiment.artifact_location) == (
        "active",
        f"{folder.parent}/mlartifacts/experiment",
    )


def test_an_experiment_that_another_process_makes_at_the_same_moment(connection: Any) -> None:
    made = connection.create_experiment("raced")

    class Late:
        """A client that does not see the experiment at first."""

        tracking_uri = "http://127.0.0.1"
        answers = [None, connection.get_experiment(made)]

        def get_experiment_by_name(self, name: str) -> Any:
            return self.answers.pop(0)

        create_experiment = staticmethod(connection.create_experiment)

    assert experiment_id(Late(), "raced") == made  # type: ignore[arg-type]


def test_errors_are_one_line_without_passwords() -> None:
    text = one_line(OSError("API request to https://me:hush@host/api\nfailed"))
    assert text == "OSError: API request to https://host/api failed"
    cut = "x" * 270 + " https://me:hush"
    assert "hush" not in one_line(OSError(cut + "hush" * 20 + "@host"))


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:hush@host:5000/a", "https://host:5000/a"),
        ("http://me:hu@sh@host", "http://host"),
        ("http://me:hu/s?h@host:5000", "http://host:5000"),
        ("postgresql://me:hush@host/mlflow?sslmode=on", "postgresql://host/mlflow?sslmode=on"),
        (
            "https://s3/a?X-Amz-Security-Token=hush&X-Amz-Signature=hush",
            "https://s3/a?X-Amz-Security-Token=&X-Amz-Signature=",
        ),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dhush", "mssql+pyodbc:///?odbc_connect="),
        ("postgresql://host/mlflow?user=me&password=hush&x=1", "postgresql://host/mlflow?user=me&password=&x=1"),
        ("sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_what_is_recorded_has_no_password_and_the_environment_gives_it_back(
    uri: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redact(uri) == shown
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert with_credentials(shown) == uri
    assert with_credentials("https://elsewhere") == "https://elsewhere", "a resumed sweep keeps its store"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert with_credentials(shown) == shown


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("htp://x", "is not of a kind that MLflow supports: write http://HOST:PORT for a server, or sqlite:///FILE."),
        ("localhost:5000", "is not of a kind that MLflow supports"),
        ("s3://bucket/x", "is not of a kind that MLflow supports"),
        ("http://", "is not a valid address: write http://HOST:PORT for a server, or sqlite:///FILE."),
        ("http://127.0.0.1:99999", "is not a valid address"),
        ("http://[::1", "is not a valid address"),
        ("sqlite:/x", "is not a valid address"),
        ("sqlite://", "would be lost with this process: write sqlite:///FILE."),
        ("/some/folder", "would be a folder, and MLflow no longer stores runs in folders"),
        ("file:///some/folder", "would be a folder, and MLflow no longer stores runs in folders"),
        ("127.0.0.1:5000", "would be a folder"),
        ("mysql+pymysql://me:hush@127.0.0.1/x", "needs the Python module pymysql, which is not installed here"),
        ("sqlite:////", "is a folder: name a file in it."),
    ],
)
def test_a_wrong_address_is_one_sentence_wherever_it_is_used(
    uri: str, message: str, tmp_path: Path, events: Callable, write: Callable
) -> None:
    expected = f"the MLflow store {redact(uri)} {message}"
    assert str(connection_error(uri)).startswith(expected)
    write(tmp_path / "events.jsonl", events("wrong", tmp_path))
    with pytest.raises(InputError) as raised:
        send_all(tmp_path / "events.jsonl", uri)
    assert str(raised.value).startswith(expected)
    sender = Sender(tmp_path / "events.jsonl", uri)
    while sender.last_error is None:
        time.sleep(0.01)
    sender.close(0, 0)
    assert sender.last_error == str(raised.value).rstrip(".")
    assert "hush" not in sender.last_error + str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]


def test_an_address_with_a_password_that_is_not_quoted() -> None:
    message = str(connection_error("http://me:hu/sh@127.0.0.1:9"))
    assert "is not a valid address" in message and "in a password write @ as %40" in message
    assert not re.search("hu|sh|me:", message.replace("the ", ""))


def test_a_database_that_nobody_serves() -> None:
    """The driver of SQLite, since no other is installed, and the port of a PostgreSQL."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        message = server.server_error(f"postgresql://me:hush@127.0.0.1:{port}/x")
    assert message == "does not answer (Connection refused): start it, or set MLFLOW_TRACKING_URI"
    assert "the host nohost.invalid is unknown" in str(server.server_error("postgresql://nohost.invalid/x"))


def test_errors_of_any_kind_of_artifact_store_are_one_sentence() -> None:
    class Odd(Exception):
        pass

    message = "the MLflow store http://host does not answer as it should: Odd: no bucket.$"
    with pytest.raises(InfrastructureError, match=message), translate_errors("http://me:hush@host"):
        raise Odd("no\nbucket")
    with pytest.raises(InputError, match="^mine$"), translate_errors("http://host"):
        raise InputError("mine")
