"""A lost cluster, simulated by a port at which nothing listens any more."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from reid_tune.execution.cluster import watchdog as watch

LOST = """
import socket, sys, time
from reid_tune.execution.cluster import watchdog as watch
watch.INTERVAL, watch.TIMEOUT = 0.05, 0.2
server = socket.create_server(("127.0.0.1", 0))
sys.argv = ["reid-tune", "sweep", "file.yaml"]
with watch.exit_when_cluster_is_lost(f"127.0.0.1:{server.getsockname()[1]}"):
    time.sleep(0.5)
    print("alive", flush=True)
    server.close()
    time.sleep(60)
"""
SAID = "is unreachable; nothing finished is lost, continue with: reid-tune sweep file.yaml --resume auto"


@pytest.mark.integration
def test_a_command_exits_with_a_message_when_its_cluster_is_lost() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "alive\n")
    assert SAID in done.stderr


def test_the_process_is_ended_when_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = threading.Event()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()
        raise SystemExit  # which ends the thread only

    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    monkeypatch.setattr(watch, "TIMEOUT", 0.04)
    monkeypatch.setattr(sys, "argv", ["reid-tune", "sweep", "file.yaml"])
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with watch.exit_when_cluster_is_lost(address):
            server.accept()[0].close()
            assert not statuses, "it answers"
            server.close()
            assert ended.wait(60)
    assert statuses == [3] and f"the Ray cluster at {address} {SAID}" in capsys.readouterr().err
