"""MLflow's web page on this machine."""

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

_INTERRUPTED = 130
_END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # in addition to Ctrl-C; a terminal that is closed sends SIGHUP
_END_SECONDS = 10  # for the server to end
_MAX_SWEEPS = 10  # whose addresses are printed


def run_ui(uri: str, port: int) -> int:
    """Show a store at http://127.0.0.1:PORT until Ctrl-C, SIGTERM or SIGHUP, or until the server ends.

    Returns:
        Exit status of the server, or 130 after a signal.

    Raises:
        InputError: the port is in use or out of range, or the store is missing, cannot be used or has its own web page.
    """
    if uri.startswith(("http://", "https://")):
        raise InputError(f"the MLflow store is a server with its own page: open {redact(uri)}.")
    path = database(uri)
    if path and not path.exists():
        raise InputError(
            f"there is no MLflow store {path} to show: go to the folder of your sweeps, or name their store in "
            "MLFLOW_TRACKING_URI."
        )
    if message := connection_error(uri):
        raise InputError(message)
    _require_port(port)
    # In a separate session Ctrl-C reaches only this process, and ending the group ends the server's workers, too.
    # Job execution starts seven processes for language models.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", **os.environ}
    # Not on the command line, which all users of the machine can read: the address may have a password.
    environment["MLFLOW_BACKEND_STORE_URI"] = uri
    print("starting MLflow's server, some 10 seconds ...", file=sys.stderr, flush=True)
    server = subprocess.Popen(_command(uri, port), stdout=sys.stderr, env=environment, start_new_session=True)
    previous = {number: signal.signal(number, signal.default_int_handler) for number in _END_SIGNALS}
    try:
        _announce(server, uri, port)
        return server.wait()
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        _end(server)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _command(uri: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-opts", "--log-level warning"]
    path = database(uri)
    return command + (["--artifacts-destination", str(path.parent / "mlartifacts")] if path else [])


def _require_port(port: int) -> None:
    if not 0 < port < 65536:
        raise InputError(f"cannot use port {port}: choose one from 1 to 65535.")
    if reason := _port_error(port):
        free_port = next((other for other in range(port + 1, 65536) if not _port_error(other)), 5000)
        raise InputError(f"cannot use port {port}: {reason}; choose another one, such as --port {free_port}.")


def _port_error(port: int) -> str | None:
    """Return why no server can listen on a port, or None."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return None
    except OSError as error:
        return error.strerror


def _announce(server: "subprocess.Popen[bytes]", uri: str, port: int) -> None:
    address, pages = f"http://127.0.0.1:{port}", _sweep_pages(uri)
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                print(f"MLflow: {address} shows {database(uri) or redact(uri)} (Ctrl-C ends it)")
                for name, page in pages.items():
                    print(f"  {name}: {address}/{page}")
                sys.stdout.flush()
                return
        time.sleep(0.2)


def _sweep_pages(uri: str) -> dict[str, str]:
    """Return the relative addresses of the latest sweeps' pages by name."""
    with translate_errors(uri):
        experiments = client(uri).search_experiments(order_by=["last_update_time DESC"], max_results=_MAX_SWEEPS)
    return {item.name: experiment_page(item.experiment_id) for item in experiments if VIEW_TAG in item.tags}


def _end(server: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_END_SECONDS)
