"""Real MLflow servers as separate processes."""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Server", "answers", "free_port", "mlflow_server"]


@dataclass(frozen=True)
class Server:
    """A server at `uri`; `process` leads a group that its worker belongs to."""

    uri: str
    process: "subprocess.Popen[bytes]"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its worker: SIGSTOP to hang, SIGCONT to continue, SIGKILL to end."""
        os.killpg(self.process.pid, number)


@contextmanager
def mlflow_server(
    folder: Path,
    *,
    backend: str | None = None,
    port: int | None = None,
    options: tuple[str, ...] = (),
    tls: tuple[Path, Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A real `mlflow server` on 127.0.0.1 that answers when the block begins, and is killed when it ends.

    Starting takes 5 to 10 seconds, and longer with a new store: use one for a whole module. A second server with the
    same folder and port replaces the first after it has ended.

    Args:
        folder: Working directory of the server, with the store, the artifacts and `server.log`.
        backend: Address of the store; by default `mlflow.db` in `folder`.
        port: Port; by default a free one.
        options: Further options of `mlflow server`, such as `("--app-name", "basic-auth")`.
        tls: Files of the private key and the certificate; the address is then https://.
        environment: Further environment variables of the server.
    """
    port, scheme = port or free_port(), "https" if tls else "http"
    uvicorn = "--log-level warning" + (f" --ssl-keyfile {tls[0]} --ssl-certfile {tls[1]}" if tls else "")
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", backend or f"sqlite:///{folder}/mlflow.db", "--uvicorn-opts", uvicorn]
    command += ["--artifacts-destination", str(folder / "mlartifacts"), *options]
    variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(environment or {})}
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(f"{scheme}://127.0.0.1:{port}", process)
    try:
        while not answers(port, bool(tls), 200):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        with suppress(ProcessLookupError):
            server.signal(signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """Return a port on 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int, tls: bool = False, status: int | None = None) -> bool:
    """Whether a server on 127.0.0.1 answers over HTTP, with this status if one is given."""
    context = ssl._create_unverified_context()
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    )
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == status or status is None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
