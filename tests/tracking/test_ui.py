import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.tracking.leaderboard_view import VIEW_TAG
from reid_tune.tracking.runs import parent_run
from reid_tune.tracking.store import connection_error
from reid_tune.tracking.ui import run_ui

from ..helpers.mlflow_servers import free_port

PROGRAM = "import sys; from reid_tune.tracking.ui import run_ui; sys.exit(run_ui(sys.argv[1], int(sys.argv[2])))"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.integration
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP])
def test_the_page_shows_runs_and_artifacts_until_it_is_ended(
    ending: signal.Signals, store: str, connection: Any, tmp_path: Path
) -> None:
    experiment, run = parent_run(connection, "shown", "uid-shown")
    connection.set_experiment_tag(experiment, VIEW_TAG, "{}")
    (tmp_path / "note.txt").write_text("seen")
    connection.log_artifact(run, str(tmp_path / "note.txt"), "notes")
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM, store, str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        path = store.removeprefix("sqlite:///")
        assert process.stdout.readline() == f"MLflow: http://127.0.0.1:{port} shows {path} (Ctrl-C ends it)\n"
        sweep = process.stdout.readline()
        assert sweep.startswith(f"  shown: http://127.0.0.1:{port}/#/experiments/{experiment}/runs?workflowType=mach")

        def get(path: str) -> tuple[int, bytes]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                return answer.status, answer.read()

        assert get("/")[0] == 200
        response = json.loads(get("/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=shown")[1])
        assert response["experiment"]["experiment_id"] == experiment
        assert get(f"/get-artifact?run_uuid={run}&path=notes/note.txt") == (200, b"seen")
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.2", port)) != 0, "it listens on 127.0.0.1 alone"
        assert connection_error(f"http://127.0.0.1:{port}") is None
        process.send_signal(ending)
        assert process.wait(60) == 130
        with pytest.raises(urllib.error.URLError):
            get("/")
    finally:
        process.kill()
    assert not [path for path in tmp_path.iterdir() if path.name != "note.txt"]


def test_a_port_in_use_is_said_before_anything_starts_with_a_free_one(store: str, taken: int) -> None:
    with pytest.raises(InputError, match=f"cannot use port {taken}: Address already in use; .* --port") as raised:
        run_ui(store, taken)
    port = int(str(raised.value).rstrip(".").rpartition(" ")[2])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_out_of_range(port: int, store: str) -> None:
    with pytest.raises(InputError, match=f"cannot use port {port}: choose one from 1 to 65535"):
        run_ui(store, port)


def test_a_store_that_is_not_there_is_not_made(
    tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    status, _, err = command("ui")
    assert err == (
        f"reid-tune: there is no MLflow store {tmp_path}/mlflow.db to show: go to the folder of your sweeps, or name "
        "their store in MLFLOW_TRACKING_URI.\n"
    )
    assert status == 2 and not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_used_starts_no_server() -> None:
    with pytest.raises(InputError, match="the MLflow store htp://x is not of a kind that MLflow supports"):
        run_ui("htp://x", 5000)


def test_a_server_has_its_own_page() -> None:
    with pytest.raises(InputError, match="open https://host:5000"):
        run_ui("https://me:hush@host:5000", 5000)
