"""A Triton server of one's own on this machine, for as long as it is needed."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from reid_tune.deploy.triton.connection import Address, is_ready
from reid_tune.errors import FailedRun, InputError

__all__ = ["own_server"]

_ENDING = 60.0  # seconds that the server gets to end


@contextmanager
def own_server(program: str, repository: Path, options: Sequence[str] = ()) -> Iterator[dict[str, Address]]:
    """Start a server on free loopback ports, and yield its addresses by protocol once its models are ready.

    Args:
        program: `tritonserver`, found as the shell would, or a path.
        options: More of it.

    Raises:
        InputError: there is no such program, or no such repository.
        FailedRun: it ended instead of becoming ready; the message is the end of its log.
    """
    found = shutil.which(program)
    if found is None:
        raise InputError(f"--server {program}: there is no such program; give the path of tritonserver.")
    if not repository.is_dir():
        raise InputError(f"--repository {repository}: there is no such folder; 'reid-tune triton repository' makes it.")
    ports = {name: _free_port() for name in ("http", "grpc", "metrics")}
    command = [found, f"--model-repository={repository}", *(f"--{name}-address=127.0.0.1" for name in ports)]
    command += [*(f"--{name}-port={port}" for name, port in ports.items()), *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        addresses = {name: Address(name, f"127.0.0.1:{ports[name]}") for name in ("http", "grpc")}
        try:
            while not is_ready(addresses["http"]):
                if process.poll() is not None:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().splitlines()
                    raise FailedRun(f"the Triton server ended with status {process.returncode}: {' '.join(said[-3:])}")
                time.sleep(0.2)
            yield addresses
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING)
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
