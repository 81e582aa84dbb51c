"""The real Triton server as a separate process, on loopback addresses."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from reid_tune.deploy.triton.address import Address
from reid_tune.deploy.triton.probe import is_server_ready

from .mlflow_servers import free_port

__all__ = ["Triton", "needs_triton", "triton_program", "triton_server"]

_ENVIRONMENT = Path(__file__).parents[2] / ".triton"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_SERVER = _ENVIRONMENT / f"lib/python{_PYTHON}/site-packages/pytriton/tritonserver"

# Seconds; a server whose backend has no Python waits for it forever.
_PATIENCE = 120

needs_triton = pytest.mark.skipif(not _SERVER.exists(), reason="there is no Triton server for this Python: make triton")


@dataclass(frozen=True)
class Triton:
    """A server: addresses HOST:PORT, its log, and its process, which leads a group that its models belong to."""

    http: str
    grpc: str
    metrics: str
    log: Path
    process: "subprocess.Popen[bytes]"


@contextmanager
def triton_server(repository: Path, *, options: tuple[str, ...] = ()) -> Iterator[Triton]:
    """A real `tritonserver` whose models are ready when the block begins, and which has ended when it ends.

    Its onnxruntime backend is the one next to this file. Starting takes 2 to 5 seconds and so does ending.

    Args:
        repository: Its model repository.
        options: More of `tritonserver`, such as `("--model-control-mode=explicit", "--load-model=reid")`.

    Raises:
        RuntimeError: it has ended, as where a model cannot be loaded, or is not ready after 2 minutes; the message is
            its log.
    """
    with tempfile.TemporaryDirectory(prefix="triton-") as scratch:
        _copy_backends(Path(scratch))
        ports = {name: free_port() for name in ("http", "grpc", "metrics")}
        command = [str(_SERVER / "bin/tritonserver"), f"--model-repository={repository}"]
        command += [f"--backend-directory={scratch}", "--allow-gpu-metrics=false", "--exit-timeout-secs=5"]
        prefix = Path(scratch).name
        command += [f"--backend-config=python,shm-region-prefix-name={prefix}"]
        command += [f"--{name}-address=127.0.0.1" for name in ports]
        command += [f"--{name}-port={port}" for name, port in ports.items()]
        log = Path(scratch, "server.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *options], env=_environment(), stdout=output, stderr=output, start_new_session=True
            )
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        try:
            deadline = time.monotonic() + _PATIENCE
            while not is_server_ready(Address("http", addresses["http"])):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text())
                time.sleep(0.1)
            yield Triton(**addresses, log=log, process=process)
        finally:
            _end(process, prefix)


def _copy_backends(folder: Path) -> None:
    # Copies: a link out of the folder is refused.
    (folder / "python").mkdir()
    stub = _SERVER / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    for file in (stub, *(_SERVER / "backends/python").glob("*triton_python*")):
        shutil.copy(file, folder / "python")
    shutil.copytree(Path(__file__).parent / "onnxruntime", folder / "onnxruntime")


def _environment() -> dict[str, str]:
    """What lets the copied backend find its libraries, this Python's before the system's, and the interpreter."""
    libraries = sysconfig.get_config_var("LIBDIR"), str(_SERVER.parents[1] / "nvidia_pytriton.libs")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PATH": f"{_ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
    }


def _end(process: "subprocess.Popen[bytes]", prefix: str) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Left by a server that a client was still connected to, or that was killed.
    for region in Path("/dev/shm").glob(f"{prefix}*"):
        region.unlink()


@contextmanager
def triton_program(folder: Path) -> Iterator[Path]:
    """A program that starts as `tritonserver` does where it is installed with its backends."""
    with tempfile.TemporaryDirectory(prefix="triton-") as scratch:
        _copy_backends(Path(scratch))
        variables = " ".join(
            f"{name}='{value}'" for name, value in _environment().items() if name in ("LD_LIBRARY_PATH", "PATH")
        )
        more = f"--backend-directory={scratch} --allow-gpu-metrics=false"
        program = folder / "tritonserver"
        program.write_text(f'#!/bin/sh\n{variables} exec {_SERVER}/bin/tritonserver {more} "$@"\n')
        program.chmod(0o755)
        yield program
