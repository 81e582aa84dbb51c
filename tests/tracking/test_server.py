"""Servers that are not MLflow's, or do not answer as they should: one sentence, and soon."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.tracking import server
from reid_tune.tracking.registry.overview import list_versions
from reid_tune.tracking.sender import send_all
from reid_tune.tracking.store import connection_error


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
def test_what_else_may_answer(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, pause: float, reason: str
) -> None:
    monkeypatch.setattr(server, "_TOTAL_SECONDS", 1.0 if pause else 10.0)
    with answering(status, body, pause) as uri:
        start = time.monotonic()
        message = connection_error(uri)
    assert str(message).startswith(f"the MLflow store {uri} {reason}") and str(message).count("\n") == 0
    assert time.monotonic() - start < 8, "a busy machine included"


def test_commands_ask_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, events: Callable, write: Callable) -> None:
    """Each of their requests would wait for a minute."""
    monkeypatch.setattr(server, "_TOTAL_SECONDS", 0.5)
    write(tmp_path / "events.jsonl", events("odd", tmp_path))
    with answering(200, b" " * 1000, 0.1) as uri:
        for call in (lambda: send_all(tmp_path / "events.jsonl", uri), lambda: list_versions(uri)):
            with pytest.raises(InfrastructureError, match=r"has not answered completely after 0\.5 s"):
                call()
