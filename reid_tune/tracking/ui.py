"""MLflow's own web page on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from reid_tune.errors import InputError
from reid_tune.tracking.store import database, public

__all__ = ["run_ui"]

INTERRUPTED = 130
PATIENCE = 10  # seconds that the server gets to end


def run_ui(uri: str, port: int) -> int:
    """Show a store at http://127.0.0.1:PORT until Ctrl-C or SIGTERM (130) or until the server ends.

    Raises:
        InputError: the port is in use or out of range, or the store has a web page of its own.
    """
    if uri.startswith(("http://", "https://")):
        raise InputError(f"the MLflow store is a server with its own page: open {public(uri)}.")
    _check_free(port)
    # A session of its own: Ctrl-C reaches us alone, and ending the group ends the server's workers too.
    # Job execution is seven processes for language models.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", **os.environ}
    # Its command line, which all users of the machine can read, is no place for a password.
    environment["MLFLOW_BACKEND_STORE_URI"] = uri
    print("starting MLflow's server, some 10 seconds ...", file=sys.stderr, flush=True)
    server = subprocess.Popen(_command(uri, port), stdout=sys.stderr, env=environment, start_new_session=True)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _announce(server, port)
        return server.wait()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        _end(server)
        signal.signal(signal.SIGTERM, previous)


def _command(uri: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-opts", "--log-level warning"]
    path = database(uri)
    return command + (["--artifacts-destination", str(path.parent / "mlartifacts")] if path else [])


def _check_free(port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot use port {port}: {getattr(error, 'strerror', error)}; choose another one.") from None


def _announce(server: "subprocess.Popen[bytes]", port: int) -> None:
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
                return
        time.sleep(0.2)


def _end(server: "subprocess.Popen[bytes]") -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE)
