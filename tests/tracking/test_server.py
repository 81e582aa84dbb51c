"""Servers that are not MLflow's, or do not answer as they should: one sentence, and soon."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.tracking import server
from reid_tune.tracking.registry.overview import list_versions
from reid_tune.tracking.sender import send_all
from reid_tune.tracking.server import PATIENT, QUICK, Patience
from reid_tune.tracking.store import connection_error, open_client


@contextmanager
def answering(status: int, body: bytes, pause: float) -> Iterator[str]:
    """A server that gives every request the same answer, one byte after each pause if there is one."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for start in range(0, len(body), 1 if pause else len(body)):
                if pause and ended.wait(pause):
                    return
                self.wfile.write(body[start : start + 1] if pause else body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.daemon_threads = True
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        ended.set()
        web.shutdown()


ODD = [
    (200, b"<html>Welcome</html>", 0, "is not an MLflow server"),
    (200, b'{"experiments": [', 0, "is not an MLflow server"),
    (200, b"[1]", 0, "is not an MLflow server"),
    (200, b'{"answer": 42}', 0, "is not an MLflow server"),
    (200, b"\x00\xff\x13", 0, "is not an MLflow server"),
    (404, b"not here", 0, "is not an MLflow server"),
    (500, b"oops", 0, "fails with status 500"),
    (503, b"", 0, "fails with status 503"),
    (429, b"", 0, "has too many requests (status 429): try again later"),
    (401, b"", 0, "refuses this user"),
    (200, b" " * 1000, 0.1, "has not answered completely after 1 s: start it again"),
]


@pytest.mark.parametrize(("status", "body", "pause", "reason"), ODD)
def test_what_else_may_answer(status: int, body: bytes, pause: float, reason: str) -> None:
    with answering(status, body, pause) as uri:
        start = time.monotonic()
        message = connection_error(uri, Patience(3.0, 1.0) if pause else QUICK)
    assert str(message).startswith(f"the MLflow store {uri} {reason}") and str(message).count("\n") == 0
    assert time.monotonic() - start < 8, "a busy machine included"


def test_commands_ask_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, events: Callable, write: Callable) -> None:
    """Each of their requests would wait for a minute."""
    monkeypatch.setattr(server, "PATIENT", Patience(3.0, 0.5))
    write(tmp_path / "events.jsonl", events("odd", tmp_path))
    with answering(200, b" " * 1000, 0.1) as uri:
        for call in (lambda: send_all(tmp_path / "events.jsonl", uri), lambda: list_versions(uri)):
            with pytest.raises(InfrastructureError, match=r"has not answered completely after 0\.5 s"):
                call()


@contextmanager
def busy(statuses: Sequence[int], pause: float) -> Iterator[str]:
    """A server with the answers of an MLflow server, each after a pause; the last status repeats."""
    remaining = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(pause)
            self.send_response(remaining.pop(0) if len(remaining) > 1 else remaining[0])
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.daemon_threads = True
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


@pytest.mark.parametrize(
    ("statuses", "pause", "reason"),
    [
        ([200], 0.0, None),
        ([200], 0.5, None),
        ([429, 200], 0.0, None),
        ([503, 200], 0.0, None),
        ([503, 429, 503, 200], 0.0, None),
        ([503, 401], 0.0, "refuses this user"),
        ([503, 404], 0.0, "is not an MLflow server"),
        ([500, 200], 0.0, "fails with status 500"),
        ([429], 0.0, "has too many requests"),
        ([503], 0.0, "fails with status 503"),
    ],
)
def test_a_command_waits_for_a_busy_server(
    statuses: list[int], pause: float, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENT", replace(PATIENT, pauses=tuple(0.01 for _ in PATIENT.pauses)))
    with busy(statuses, pause) as uri:
        if reason:
            with pytest.raises(InfrastructureError, match=reason):
                open_client(uri)
        else:
            open_client(uri)


def test_only_a_warning_is_impatient() -> None:
    with busy([200], 0.5) as uri:
        assert "does not answer" in str(connection_error(uri, Patience(0.1, 10.0)))
    assert QUICK.response == 3 and PATIENT.response == 30 and PATIENT.total > PATIENT.response + sum(PATIENT.pauses)
