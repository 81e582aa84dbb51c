"""MLflow's own web page on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from reid_tune.errors import InputError
from reid_tune.tracking.leaderboard_view import VIEW_TAG, experiment_page
from reid_tune.tracking.store import client, connection_error, database, redact, translate_errors

__all__ = ["run_ui"]

INTERRUPTED = 130
ENDING = (signal.SIGTERM, signal.SIGHUP)  # beside Ctrl-C; a terminal that is closed sends SIGHUP
PATIENCE = 10  # seconds that the server gets to end
LATEST = 10  # experiments


def run_ui(uri: str, port: int) -> int:
    """Show a store at http://127.0.0.1:PORT until Ctrl-C, SIGTERM or SIGHUP (130) or until the server ends.

    Raises:
        InputError: the port is in use or out of range, or the store is missing, cannot be used or has its own page.
    """
    if uri.startswith(("http://", "https://")):
        raise InputError(f"the MLflow store is a server with its own page: open {redact(uri)}.")
    path = database(uri)
    if path and not path.exists():
        raise InputError(
            f"there is no MLflow store {path} to show: go to the folder of your sweeps, or name their store in "
            "MLFLOW_TRACKING_URI."
        )
    if wrong := connection_error(uri):
        raise InputError(wrong)
    _check_free(port)
    # A session of its own: Ctrl-C reaches us alone, and ending the group ends the server's workers too.
    # Job execution is seven processes for language models.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", **os.environ}
    # Its command line, which all users of the machine can read, is no place for a password.
    environment["MLFLOW_BACKEND_STORE_URI"] = uri
    print("starting MLflow's server, some 10 seconds ...", file=sys.stderr, flush=True)
    server = subprocess.Popen(_command(uri, port), stdout=sys.stderr, env=environment, start_new_session=True)
    previous = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    try:
        _announce(server, uri, port)
        return server.wait()
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        _end(server)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _command(uri: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-opts", "--log-level warning"]
    path = database(uri)
    return command + (["--artifacts-destination", str(path.parent / "mlartifacts")] if path else [])


def _check_free(port: int) -> None:
    if not 0 < port < 65536:
        raise InputError(f"cannot use port {port}: choose one from 1 to 65535.")
    if wrong := _taken(port):
        free = next((other for other in range(port + 1, 65536) if not _taken(other)), 5000)
        raise InputError(f"cannot use port {port}: {wrong}; choose another one, such as --port {free}.")


def _taken(port: int) -> str | None:
    """Why no server can listen on a port, or None."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return None
    except OSError as error:
        return error.strerror


def _announce(server: "subprocess.Popen[bytes]", uri: str, port: int) -> None:
    address, pages = f"http://127.0.0.1:{port}", _sweeps(uri)
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                print(f"MLflow: {address} shows {database(uri) or redact(uri)} (Ctrl-C ends it)")
                for name, place in pages.items():
                    print(f"  {name}: {address}/{place}")
                sys.stdout.flush()
                return
        time.sleep(0.2)


def _sweeps(uri: str) -> dict[str, str]:
    """Pages of the latest sweeps by name."""
    with translate_errors(uri):
        found = client(uri).search_experiments(order_by=["last_update_time DESC"], max_results=LATEST)
    return {each.name: experiment_page(each.experiment_id) for each in found if VIEW_TAG in each.tags}


def _end(server: "subprocess.Popen[bytes]") -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE)
