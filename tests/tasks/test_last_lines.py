"""The last line of a command claims nothing that has failed."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.report.html import PAGE
from reid_tune.sweep import ending
from reid_tune.sweep.mlflow_sync import SyncResult
from reid_tune.tasks.train import describe_stop, run_train
from reid_tune.tracking import cursor, sender
from reid_tune.tracking.sender import SendResult

from .conftest import Spec


@contextmanager
def answering(status: int, content: bytes) -> Iterator[str]:
    """Yield the address of a server that answers every request alike; a status of 0 closes the connection."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            if status:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CLOSE_SECONDS", "_STALL_SECONDS"):
        monkeypatch.setattr(sender, name, 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("status", "content"),
    [
        (401, b""),
        (403, b"{}"),
        (404, b"not found"),
        (429, b""),
        (500, b""),
        (503, b"<html>try later</html>"),
        (200, b"<html>login</html>"),
        (200, b"{}"),
        (0, b""),
    ],
)
def test_a_tracked_training_names_no_run_in_a_store_that_refuses(
    spec: Spec, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], status: int, content: bytes
) -> None:
    with answering(status, content) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert run_train(spec(), track=True).name == LATEST
    lines = capfd.readouterr().err.splitlines()
    assert not [line for line in lines if line.startswith("MLflow: run ")]
    assert "events are not in MLflow" in lines[-1] and "send them with reid-tune sync" in lines[-1]


def test_a_tracked_training_names_no_run_of_which_the_store_rejects_a_part(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def reject(self: cursor.Cursor, *_: object) -> int:
        self.refusal = "INVALID_PARAMETER_VALUE: no"
        return 0

    monkeypatch.setattr(cursor.Cursor, "send", reject)
    monkeypatch.setattr(cursor.Cursor, "lag", lambda self: 0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run_train(spec(), track=True)
    assert capfd.readouterr().err.splitlines()[-1] == "warning: MLflow: INVALID_PARAMETER_VALUE: no"


@pytest.mark.parametrize(
    ("has_checkpoint", "resume", "sentence"),
    [
        (True, "", "stopped; the same command continues from the last finished epoch."),
        (False, "", "stopped before an epoch was finished; the same command starts again."),
        (False, "a.pth", "stopped; the same command starts again from the checkpoint that it was given."),
        (True, "a.pth", "starts again from the checkpoint that it was given unless train.resume_training_checkpoint"),
    ],
)
def test_a_stopped_training_promises_what_the_same_command_does(
    spec: Spec, has_checkpoint: bool, resume: str, sentence: str
) -> None:
    experiment = spec(train__resume_training_checkpoint_path=resume or None)
    latest = experiment.task_dir("train") / LATEST
    if has_checkpoint:
        latest.parent.mkdir(parents=True)
        latest.touch()
    assert sentence in describe_stop(experiment)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (SendResult(3, None), "a: 3 events sent to sqlite:///x"),
        (SendResult(0, None), "a: nothing was left to send to sqlite:///x"),
        (SendResult(3, "no"), "a: 3 events sent to sqlite:///x (some were rejected: no)"),
        (SendResult(3, None, "runs were restored"), "a: 3 events sent to sqlite:///x (runs were restored)"),
    ],
)
def test_what_sync_says_of_a_log(sent: SendResult, text: str) -> None:
    assert str(SyncResult("a", sent, "sqlite:///x")) == text


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug"), RuntimeError("x")])
def test_an_older_page_is_not_shown_for_one_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def write_page(folder: Path) -> Path:
        raise error

    class Sweep:
        folder = tmp_path

    (tmp_path / PAGE).write_text("an older one")
    monkeypatch.setattr(ending, "write_page", write_page)
    ending.write_sweep_page(Sweep, None, Console())  # type: ignore[arg-type]
    assert not (tmp_path / PAGE).exists() and "the page could not be written" in capsys.readouterr().out
