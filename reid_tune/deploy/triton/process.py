"""Temporary Triton server on this machine."""

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

_READY = 300.0  # Seconds that the server gets to load its models.
_ENDING = 60.0  # Seconds that it gets to end.
# Seconds for its child processes after its own end: dead processes that nobody reaps stay in its group.
_CHILDREN_ENDING = 15.0
_LOG_TAIL = 4096  # Bytes at the end of its log that messages quote from.


@contextmanager
def local_server(program: str, repository: Path, options: Sequence[str] = ()) -> Iterator[dict[str, Address]]:
    """Start a server on free loopback ports, and yield its addresses by protocol once its models are ready.

    When the block ends, the server and all processes that it started are ended.

    Args:
        program: `tritonserver`, found as the shell would, or a path.
        repository: Folder of the model repository.
        options: Further options of the program.

    Raises:
        InputError: the program does not exist or cannot be run, or the repository does not exist.
        RunFailedError: the server ended, or was not ready after 5 minutes; the message has the end of its log.
    """
    executable = shutil.which(program)
    if executable is None:
        raise InputError(f"--server {program}: there is no such program to run; give the path of tritonserver.")
    if not repository.is_dir():
        raise InputError(f"--repository {repository}: there is no such folder; 'reid-tune triton repository' makes it.")
    ports = {name: _free_port() for name in ("http", "grpc", "metrics")}
    command = [executable, f"--model-repository={repository}", *(f"--{name}-address=127.0.0.1" for name in ports)]
    command += [*(f"--{name}-port={port}" for name, port in ports.items()), "--exit-timeout-secs=5", *options]
    addresses = {name: Address(name, f"127.0.0.1:{ports[name]}") for name in ("http", "grpc")}
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"--server {program} cannot be run ({reason}): give the path of tritonserver.") from None
        try:
            _wait_until_ready(process, addresses["http"], log)
            yield addresses
        finally:
            _end(process)


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: Address, log: IO[bytes]) -> None:
    deadline = time.monotonic() + _READY
    while not is_server_ready(address):
        if process.poll() is not None:
            raise RunFailedError(f"the Triton server ended with status {process.returncode}: {_last_lines(log)}")
        if time.monotonic() > deadline:
            raise RunFailedError(f"the Triton server was not ready after {_READY:.0f} seconds: {_last_lines(log)}")
        time.sleep(0.2)


def _last_lines(log: IO[bytes]) -> str:
    """Return the last lines of a log as one; the file's position, where the server writes, is left as it is."""
    start = max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL)
    lines = os.pread(log.fileno(), _LOG_TAIL, start).decode(errors="replace").strip().splitlines()
    return " ".join(lines[-3:]) or "its log is empty."


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and its process group: where the program is a script, the server is its child."""
    deadline = time.monotonic() + _ENDING
    with suppress(ProcessLookupError):
        try:
            os.killpg(process.pid, signal.SIGTERM)
            while time.monotonic() < deadline:
                if process.poll() is not None:  # This also removes it from the group.
                    deadline = min(deadline, time.monotonic() + _CHILDREN_ENDING)
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
