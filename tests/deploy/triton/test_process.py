"""A local server, simulated by small programs."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from reid_tune.deploy.triton import process
from reid_tune.deploy.triton.process import local_server
from reid_tune.errors import InputError, RunFailedError

PATIENCE = 120


@pytest.fixture
def server(tmp_path: Path) -> Path:
    return tmp_path / "server"


def write(server: Path, text: str, mode: int = 0o755) -> str:
    server.write_text(text)
    server.chmod(mode)
    return str(server)


def fault(program: str, repository: Path, kind: type[Exception]) -> str:
    """The one sentence with which it ends."""
    with pytest.raises(kind) as found, local_server(program, repository):
        raise AssertionError("it is ready")
    assert "\n" not in str(found.value)
    return str(found.value)


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)  # which its new parent has yet to notice
    except psutil.NoSuchProcess:
        return True


def test_a_local_server_needs_a_program_and_a_repository(tmp_path: Path) -> None:
    for program, repository, said in (
        ("no-such-tritonserver", tmp_path, "there is no such program"),
        ("true", tmp_path / "gone", "there is no such folder"),
    ):
        assert said in fault(program, repository, InputError)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("no program", 0o755, " cannot be run (Exec format error): give the path of tritonserver."),
        ("#!/no/such/shell\n", 0o755, " cannot be run (No such file or directory): give"),
        ("#!/bin/sh\n", 0o644, ": there is no such program to run; give the path of tritonserver."),
    ],
)
def test_a_file_that_cannot_be_run(server: Path, text: str, mode: int, said: str) -> None:
    assert f"--server {server}{said}" in fault(write(server, text, mode), server.parent, InputError)


def test_a_program_that_ends_is_told_by_what_it_said(server: Path) -> None:
    program = write(server, "#!/bin/sh\nseq 10000\necho no GPU >&2\nexit 3\n")
    assert fault(program, server.parent, RunFailedError) == "the Triton server ended with status 3: 9999 10000 no GPU"
    assert fault("true", server.parent, RunFailedError).endswith("ended with status 0: its log is empty.")


@pytest.mark.parametrize("trap", ["", "trap '' TERM\n"])
def test_a_server_that_never_gets_ready_ends_with_all_that_it_started(
    server: Path, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_READY", 0.0)
    monkeypatch.setattr(process, "_ENDING", 1.0 if trap else 60.0)
    sleeper = server.with_name("sleeper")

    def not_yet(*_: object) -> bool:
        """No answer, but not before the program has come to its end."""
        begun = time.monotonic()
        while not (sleeper.exists() and sleeper.read_text()):
            assert time.monotonic() - begun < PATIENCE
            time.sleep(0.05)
        return False

    monkeypatch.setattr(process, "is_server_ready", not_yet)
    program = write(server, f"#!/bin/sh\n{trap}echo loading\nsleep 1000 &\necho $! > {sleeper}\nwait\n")
    assert fault(program, server.parent, RunFailedError) == "the Triton server was not ready after 0 seconds: loading"
    deadline = time.monotonic() + PATIENCE
    while not has_ended(int(sleeper.read_text())):
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)


@pytest.mark.integration
def test_a_closed_terminal_ends_the_server_too(server: Path) -> None:
    sleeper = server.with_name("sleeper")
    program = write(server, f"#!/bin/sh\nsleep 1000 &\necho $! > {sleeper}\nwait\n")
    folder = str(server.parent)
    command = [sys.executable, "-m", "reid_tune", "triton", "e2e", folder, "--test_dir", folder, "-m", "people"]
    running = subprocess.Popen(
        [*command, "--repository", folder, "--server", program],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # where the tests run under nohup
    )
    deadline = time.monotonic() + PATIENCE
    while not (sleeper.exists() and sleeper.read_text()):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGHUP)
    assert running.wait(PATIENCE) == 130
    while not has_ended(int(sleeper.read_text())):
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)
