"""A real MLflow server, on SQLite and on PostgreSQL, that is unreachable, hangs or ends during a sweep."""

import http.client
import http.server
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.tracking import sender as module
from reid_tune.tracking.sender import Sender, send_all
from reid_tune.tracking.store import client

from ..helpers.mlflow_servers import Server, free_port, mlflow_server

pytestmark = pytest.mark.integration

PATIENCE = 120


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries at once, so that the tests wait for servers and not for pauses."""
    monkeypatch.setattr(module, "_MAX_RETRY_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


class RestartableServer:
    """A server that can be started, stopped, killed and started again with the same store and address."""

    def __init__(self, folder: Path, backend: str | None) -> None:
        folder.mkdir()
        self._folder, self._port, self._stack = folder, free_port(), ExitStack()
        self._backend = backend
        self.uri = f"http://127.0.0.1:{self._port}"
        self.server: Server | None = None

    def start(self) -> None:
        self.server = self._stack.enter_context(mlflow_server(self._folder, backend=self._backend, port=self._port))

    def signal(self, number: signal.Signals) -> None:
        assert self.server is not None
        self.server.signal(number)

    def kill(self) -> None:
        self._stack.close()


@pytest.fixture
def server(tmp_path: Path, backend: str | None) -> Iterator[RestartableServer]:
    restartable = RestartableServer(tmp_path / "server", backend)
    yield restartable
    restartable.kill()


@pytest.fixture
def sweep(tmp_path: Path, events: Callable, write: Callable) -> Callable[[str], tuple[Path, Callable[[int], None]]]:
    """A sweep's log, and a function that writes it up to an event."""

    def begin(name: str) -> tuple[Path, Callable[[int], None]]:
        (tmp_path / "cmc.txt").write_text("curve")
        log, lines = tmp_path / name / "events.jsonl", events(name, tmp_path / "cmc.txt")
        log.parent.mkdir()
        written = 0

        def write_until(end: int) -> None:
            nonlocal written
            write(log, lines[written:end])
            written = end

        return log, write_until

    return begin


def wait(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def content(uri: str, name: str, snapshot: Callable) -> dict[str, Any]:
    return snapshot(name, client(uri))


def test_a_server_that_is_unreachable_hangs_and_ends_has_everything_afterwards(
    impatient: None, server: RestartableServer, store: str, sweep: Callable, snapshot: Callable
) -> None:
    log, write_until = sweep("outage")
    write_until(3)
    sender = Sender(log, server.uri)
    wait(lambda: sender.last_error)
    assert "events behind" in sender.lag_message and "127.0.0.1" in sender.lag_message
    server.start()
    wait(lambda: sender.lag == 0)
    wait(lambda: not sender.lag_message)

    server.signal(signal.SIGSTOP)
    write_until(9)
    wait(lambda: sender.last_error)
    assert sender.lag == 6
    server.signal(signal.SIGCONT)
    wait(lambda: sender.lag == 0)

    write_until(12)
    wait(lambda: sender.lag == 0)
    server.signal(signal.SIGKILL)
    write_until(23)
    begun = time.monotonic()
    assert not sender.close(timeout=60, stall_timeout=2)
    assert time.monotonic() - begun < 20, "an unreachable store is not waited for"
    with pytest.raises(InfrastructureError, match="nothing listens at this address"):
        send_all(log, server.uri)

    server.kill()
    server.start()
    assert send_all(log, server.uri, closed=True).events == 11
    recovered = content(server.uri, "outage", snapshot)
    (log.parent / "tracking.cursor.json").unlink()
    send_all(log, store)
    assert recovered == content(store, "outage", snapshot)
    assert len(recovered["trials/0000"]["metrics"]["val/mAP"]) == 3


def test_a_server_that_hangs_blocks_neither_the_writer_nor_the_end(
    impatient: None, server: RestartableServer, sweep: Callable
) -> None:
    log, write_until = sweep("hangs")
    server.start()
    server.signal(signal.SIGSTOP)
    write_until(9)
    sender = Sender(log, server.uri)
    wait(lambda: sender.last_error)
    assert sender.lag == 9 and not sender.close(timeout=1, stall_timeout=1)
    wait(lambda: "mlflow-sender" not in {thread.name for thread in threading.enumerate()})
    server.signal(signal.SIGCONT)
    assert send_all(log, server.uri).events == 9


class BusyProxy(http.server.BaseHTTPRequestHandler):
    """Passes 12 requests on to a server, refuses the next one, and so on."""

    server: "BusyServer"

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.requests % 13 == 0:
            is_odd = self.server.requests % 2
            self._answer(429 if is_odd else 503, b'{"error": "later"}' if is_odd else b"later", {"Retry-After": "1"})
            return
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(self.server.target)
        connection.request(self.command, self.path, data, dict(self.headers))
        response = connection.getresponse()
        self._answer(response.status, response.read(), {"Content-Type": response.getheader("Content-Type", "")})
        connection.close()

    do_POST = do_PUT = do_PATCH = do_GET

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class BusyServer(http.server.ThreadingHTTPServer):
    """The proxy's server."""

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), BusyProxy)
        self.target, self.requests = target, 0


def test_a_busy_server_gets_every_event(
    impatient: None, server: RestartableServer, store: str, sweep: Callable, snapshot: Callable
) -> None:
    target = server.uri.removeprefix("http://")
    log, write_until = sweep("busy")
    server.start()
    with BusyServer(target) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{proxy.server_port}"
        write_until(23)
        sender = Sender(log, uri)
        wait(lambda: sender.last_error)
        assert "429" in sender.last_error or "503" in sender.last_error
        assert sender.close(PATIENCE, PATIENCE) and not sender.last_error
        proxy.shutdown()
    recovered = content(server.uri, "busy", snapshot)
    (log.parent / "tracking.cursor.json").unlink()
    send_all(log, store)
    assert recovered == content(store, "busy", snapshot)
