"""A Triton server of one's own on this machine, for as long as it is needed."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from reid_tune.deploy.triton.address import Address
from reid_tune.deploy.triton.probe import is_server_ready
from reid_tune.errors import InputError, RunFailedError

__all__ = ["local_server"]

_READY = 300.0  # seconds that the server gets to load its models
_ENDING = 60.0  # seconds that it gets to end
_AFTER = 15.0  # seconds for what it started, behind its own end: dead processes that nobody reaps stay in its group
_SAID = 4096  # bytes at the end of its log that are looked at


@contextmanager
def local_server(program: str, repository: Path, options: Sequence[str] = ()) -> Iterator[dict[str, Address]]:
    """Start a server on free loopback ports, and yield its addresses by protocol once its models are ready.

    It ends with all that it started.

    Args:
        program: `tritonserver`, found as the shell would, or a path.
        options: More of it.

    Raises:
        InputError: there is no such program, it cannot be run, or there is no such repository.
        RunFailedError: it ended, or 5 minutes went by, without becoming ready; the message has the end of its log.
    """
    found = shutil.which(program)
    if found is None:
        raise InputError(f"--server {program}: there is no such program to run; give the path of tritonserver.")
    if not repository.is_dir():
        raise InputError(f"--repository {repository}: there is no such folder; 'reid-tune triton repository' makes it.")
    ports = {name: _free_port() for name in ("http", "grpc", "metrics")}
    command = [found, f"--model-repository={repository}", *(f"--{name}-address=127.0.0.1" for name in ports)]
    command += [*(f"--{name}-port={port}" for name, port in ports.items()), "--exit-timeout-secs=5", *options]
    addresses = {name: Address(name, f"127.0.0.1:{ports[name]}") for name in ("http", "grpc")}
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"--server {program} cannot be run ({reason}): give the path of tritonserver.") from None
        try:
            _wait(process, addresses["http"], log)
            yield addresses
        finally:
            _end(process)


def _wait(process: "subprocess.Popen[bytes]", address: Address, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _READY
    while not is_server_ready(address):
        if process.poll() is not None:
            raise RunFailedError(f"the Triton server ended with status {process.returncode}: {_said(log)}")
        if time.monotonic() > deadline:
            raise RunFailedError(f"the Triton server was not ready after {_READY:.0f} seconds: {_said(log)}")
        time.sleep(0.2)


def _said(log: IO[bytes]) -> str:
    """The last lines of a log, as one; its position, where the server writes, stays."""
    start = max(0, os.fstat(log.fileno()).st_size - _SAID)
    lines = os.pread(log.fileno(), _SAID, start).decode(errors="replace").strip().splitlines()
    return " ".join(lines[-3:]) or "it said nothing."


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and its group: where the program is a script, the server is a child of it."""
    deadline = time.monotonic() + _ENDING
    with suppress(ProcessLookupError):
        try:
            os.killpg(process.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                if process.poll() is not None:  # which also takes it out of the group
                    deadline = min(deadline, time.monotonic() + _AFTER)
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
