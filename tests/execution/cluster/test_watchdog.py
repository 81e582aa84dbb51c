"""A lost cluster, simulated by ports at which nothing listens any more and by answers that do not come."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reid_tune.execution.cluster import watchdog
from reid_tune.execution.cluster.watchdog import Probe, exit_when_lost

LOST = """
import socket, sys, time
from reid_tune.execution.cluster import watchdog
watchdog.INTERVAL = 0.05
server = socket.create_server(("127.0.0.1", 0))
address = f"127.0.0.1:{server.getsockname()[1]}"
sys.argv = ["reid-tune", "sweep", "file.yaml"]
with watchdog.exit_when_lost([watchdog.Probe("the cluster is gone", lambda: watchdog._accepts(address), 0.2)]):
    time.sleep(0.5)
    print("alive", flush=True)
    server.close()
    time.sleep(60)
"""
MESSAGE = (
    "reid-tune: the cluster is gone; nothing finished is lost, continue with: reid-tune sweep file.yaml --resume auto\n"
)


@pytest.mark.integration
def test_a_command_exits_with_a_message_when_its_cluster_is_lost() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "alive\n", MESSAGE)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set when the process would be ended with status 3."""
    event = threading.Event()

    def end(status: int) -> None:
        assert status == 3
        event.set()
        raise SystemExit  # which ends the thread only

    monkeypatch.setattr(watchdog, "INTERVAL", 0.01)
    monkeypatch.setattr(sys, "argv", ["reid-tune", "sweep", "file.yaml"])
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    return event


def test_the_process_is_ended_when_nobody_answers(
    ended: threading.Event, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "session" / "r").mkdir(parents=True)
    child = subprocess.Popen(["sleep", "600"])
    monkeypatch.setattr(watchdog.psutil, "Process", lambda: SimpleNamespace(children=lambda recursive: [child]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        probe = Probe("the cluster is gone", lambda: watchdog._accepts(address), 0.04)
        with exit_when_lost([probe], tmp_path / "session"):
            server.accept()[0].close()
            assert not ended.is_set(), "it answers"
            server.close()
            assert ended.wait(60)
    assert capsys.readouterr().err == MESSAGE
    assert child.wait() == -signal.SIGKILL and not list((tmp_path / "session").iterdir())


@pytest.mark.parametrize(
    ("error", "accepts"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), False),
        (TimeoutError("timed out"), False),
        (OSError(errno.ETIMEDOUT, "timed out"), False),
        (OSError(errno.EHOSTUNREACH, "no route"), False),
        (OSError(errno.ENETUNREACH, "no network"), False),
        (OSError(errno.ENETDOWN, "network down"), False),
        (OSError(errno.EMFILE, "too many open files"), True),
        (OSError(errno.ENFILE, "too many open files in system"), True),
        (OSError(errno.ENOBUFS, "no buffers"), True),
        (OSError(errno.ENOMEM, "no memory"), True),
        (OSError(errno.EADDRNOTAVAIL, "no ports"), True),
        (PermissionError(errno.EPERM, "forbidden"), True),
        (socket.gaierror(socket.EAI_AGAIN, "the name server is busy"), True),
    ],
)
def test_errors_of_this_process_are_not_silence(error: OSError, accepts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    assert watchdog._accepts("127.0.0.1:6379") is accepts


def test_a_process_that_is_too_busy_to_accept_is_not_silent() -> None:
    """The kernel completes the connections of its queue."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert all(watchdog._accepts(address) for _ in range(100)), "100 probes are more than eight minutes"


@pytest.mark.parametrize(
    ("answers", "seconds", "is_lost"),
    [
        ([True] * 8, 0.01, False),
        ([False] * 3 + [True] * 5, 0.04, False),
        ([True, False] * 8, 0.02, False),
        ([False, False, True] * 4, 0.03, False),
        ([False] * 4, 0.04, True),
        ([True, True, False, False], 0.02, True),
        ([False, True, False, False, False], 0.03, True),
        ([True] * 7 + [False], 0.01, True),
    ],
)
def test_only_silence_in_a_row_counts(
    answers: list[bool], seconds: float, is_lost: bool, ended: threading.Event
) -> None:
    rest, finished = list(answers), threading.Event()

    def answer() -> bool:
        if len(rest) == 1:
            finished.set()
        return rest.pop(0) if rest else True

    with exit_when_lost([Probe("other", lambda: True, 0.01), Probe("the cluster is gone", answer, seconds)]):
        assert finished.wait(10)
        time.sleep(0.05)
    assert ended.is_set() == is_lost


def test_nothing_is_ended_after_the_block(ended: threading.Event) -> None:
    with exit_when_lost([Probe("the cluster is gone", lambda: False, 0.05)]):
        pass
    time.sleep(0.1)
    assert not ended.is_set()


def never() -> bool:
    time.sleep(1)
    return True


def fail() -> bool:
    raise ConnectionError


@pytest.mark.parametrize(
    ("question", "has_answered", "answer"),
    [
        (lambda: True, True, True),
        (lambda: False, True, False),
        (fail, False, True),
        (never, False, True),
    ],
)
def test_a_question_is_asked_in_the_background(
    question: Callable[[], bool], has_answered: bool, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "INTERVAL", 0.02)
    with watchdog._Background(question) as state:
        time.sleep(0.1)
        assert (state.has_answered(), state.last_answer()) == (has_answered, answer)
