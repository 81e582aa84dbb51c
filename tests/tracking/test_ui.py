import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InputError
from reid_tune.tracking.runs import parent_run
from reid_tune.tracking.ui import run_ui

PROGRAM = "import sys; from reid_tune.tracking.ui import run_ui; sys.exit(run_ui(sys.argv[1], int(sys.argv[2])))"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_page_shows_runs_and_artifacts_and_ctrl_c_ends_it(store: str, connection: Any, tmp_path: Path) -> None:
    experiment, run = parent_run(connection, "shown", "uid-shown")
    (tmp_path / "note.txt").write_text("seen")
    connection.log_artifact(run, str(tmp_path / "note.txt"), "notes")
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", PROGRAM, store, str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)\n"

        def get(path: str) -> tuple[int, bytes]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                return answer.status, answer.read()

        assert get("/")[0] == 200
        found = json.loads(get("/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=shown")[1])
        assert found["experiment"]["experiment_id"] == experiment
        assert get(f"/get-artifact?run_uuid={run}&path=notes/note.txt") == (200, b"seen")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        with pytest.raises(urllib.error.URLError):
            get("/")
    finally:
        process.kill()
    assert not [path for path in tmp_path.iterdir() if path.name != "note.txt"]


def test_a_port_in_use_is_said_before_anything_starts(store: str, taken: int) -> None:
    with pytest.raises(InputError, match=f"cannot use port {taken}: Address already in use; choose another one"):
        run_ui(store, taken)


def test_a_server_has_its_own_page() -> None:
    with pytest.raises(InputError, match="open https://host:5000"):
        run_ui("https://me:hush@host:5000", 5000)
