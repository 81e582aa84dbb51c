import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.tracking.store import client, database, experiment_id, one_line, reachable, tracking_uri


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


def test_reachable_looks_at_servers_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reachable(f"http://user:word@127.0.0.1:{port}")
    assert not reachable(f"http://127.0.0.1:{port}")
    assert reachable("sqlite:////nowhere/mlflow.db")
