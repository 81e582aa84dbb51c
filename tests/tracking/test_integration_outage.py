"""A real MLflow server that is away, hangs or dies while a sweep goes on, and afterwards has what it would have had."""

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


class Away:
    """A server that can be started, stopped, killed and started again with the same store and address."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._port, self._stack = folder, free_port(), ExitStack()
        self.uri = f"http://127.0.0.1:{self._port}"
        self.server: Server | None = None

    def start(self) -> None:
        self.server = self._stack.enter_context(mlflow_server(self._folder, port=self._port))

    def signal(self, number: signal.Signals) -> None:
        assert self.server is not None
        self.server.signal(number)

    def kill(self) -> None:
        self._stack.close()


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Away]:
    server = Away(tmp_path / "server")
    yield server
    server.kill()


@pytest.fixture
def sweep(tmp_path: Path, events: Callable, write: Callable) -> Callable[[str], tuple[Path, Callable[[int], None]]]:
    """A sweep's log, and what writes it up to an event."""

    def begin(name: str) -> tuple[Path, Callable[[int], None]]:
        (tmp_path / "cmc.txt").write_text("curve")
        log, lines = tmp_path / name / "events.jsonl", events(name, tmp_path / "cmc.txt")
        log.parent.mkdir()
        written = 0

        def go_on(to: int) -> None:
            nonlocal written
            write(log, lines[written:to])
            written = to

        return log, go_on

    return begin


def wait(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def content(uri: str, name: str, snapshot: Callable) -> dict[str, Any]:
    return snapshot(name, client(uri))


def test_a_server_that_is_away_hangs_and_dies_has_everything_in_the_end(
    impatient: None, away: Away, store: str, sweep: Callable, snapshot: Callable
) -> None:
    log, go_on = sweep("outage")
    go_on(3)
    sender = Sender(log, away.uri)
    wait(lambda: sender.last_error)
    assert "events behind" in sender.lag_message and "127.0.0.1" in sender.lag_message
    away.start()
    wait(lambda: sender.lag == 0)
    wait(lambda: not sender.lag_message)

    away.signal(signal.SIGSTOP)
    go_on(9)
    wait(lambda: sender.last_error)
    assert sender.lag == 6
    away.signal(signal.SIGCONT)
    wait(lambda: sender.lag == 0)

    go_on(12)
    wait(lambda: sender.lag == 0)
    away.signal(signal.SIGKILL)
    go_on(23)
    begun = time.monotonic()
    assert not sender.close(timeout=60, stall_timeout=2)
    assert time.monotonic() - begun < 20, "a store that is dead is not waited for"
    with pytest.raises(InfrastructureError, match="does not answer as it should"):
        send_all(log, away.uri)

    away.kill()
    away.start()
    assert send_all(log, away.uri, closed=True).events == 11
    mended = content(away.uri, "outage", snapshot)
    (log.parent / "tracking.cursor.json").unlink()
    send_all(log, store)
    assert mended == content(store, "outage", snapshot)
    assert len(mended["trials/0000"]["metrics"]["val/mAP"]) == 3


def test_a_server_that_hangs_blocks_neither_the_writer_nor_the_end(
    impatient: None, away: Away, sweep: Callable
) -> None:
    log, go_on = sweep("hangs")
    away.start()
    away.signal(signal.SIGSTOP)
    go_on(9)
    sender = Sender(log, away.uri)
    wait(lambda: sender.last_error)
    assert sender.lag == 9 and not sender.close(timeout=1, stall_timeout=1)
    wait(lambda: "mlflow-sender" not in {thread.name for thread in threading.enumerate()})
    away.signal(signal.SIGCONT)
    assert send_all(log, away.uri).events == 9
