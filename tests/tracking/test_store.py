import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.tracking.store import (
    client,
    database,
    experiment_id,
    one_line,
    public,
    reachable,
    tracking_uri,
    with_credentials,
)


def test_mlflow_is_imported_only_when_used() -> None:
    modules = "projection, registry, resolve, runs, sender, store, ui"
    program = f"import sys; from reid_tune.tracking import {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0


def test_the_default_store_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://server:5000", "http://server:5000"),
        ("sqlite:////data/m.db", "sqlite:////data/m.db"),
        ("sqlite:///m.db", "sqlite:///{cwd}/m.db"),
    ],
)
def test_the_environment_wins(given: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking_uri() == expected.format(cwd=tmp_path)


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        client(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_an_experiment_is_made_once_and_comes_back_when_deleted(connection: Any, store: str) -> None:
    made = experiment_id(connection, "experiment")
    connection.delete_experiment(made)
    assert experiment_id(connection, "experiment") == made
    found = connection.get_experiment(made)
    folder = database(store)
    assert folder is not None
    assert (found.lifecycle_stage, found.artifact_location) == ("active", f"{folder.parent}/mlartifacts/experiment")


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
        ("postgresql://me:hush@host/mlflow?sslmode=on", "postgresql://host/mlflow?sslmode=on"),
        ("postgresql://host/mlflow?user=me&password=hush&x=1", "postgresql://host/mlflow?user=me&password=&x=1"),
        ("sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_what_is_recorded_has_no_password_and_the_environment_gives_it_back(
    uri: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert public(uri) == shown
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert with_credentials(shown) == uri
    assert with_credentials("https://elsewhere") == "https://elsewhere", "a resumed sweep keeps its store"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert with_credentials(shown) == shown


def test_reachable_looks_at_servers_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reachable(f"http://user:word@127.0.0.1:{port}")
    assert not reachable(f"http://127.0.0.1:{port}")
    assert reachable("sqlite:////nowhere/mlflow.db")
