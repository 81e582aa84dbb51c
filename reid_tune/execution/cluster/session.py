"""The session with Ray during a sweep: a local cluster, or a connection to an existing one."""

import json
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE
from reid_tune.environment import set_variables, temporary_variables
from reid_tune.errors import InfrastructureError, InputError, ReidTuneError
from reid_tune.execution.cluster.discovery import find_cluster
from reid_tune.execution.cluster.session_folder import session_folder
from reid_tune.execution.cluster.watchdog import exit_when_cluster_is_lost
from reid_tune.execution.ray_private import hide_messages, local_cluster_options, loopback_only
from reid_tune.imports import quick_imports
from reid_tune.storage.temporary_folder import RAY_FOLDER

__all__ = ["ray_session"]

_WORKER_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # seconds that a report of a run with several workers waits at most
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # the patch would write each line of a run's log twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Ray would hide the GPUs from tasks that request none; workers choose their device themselves.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Passed on to the workers of other nodes: the key's file, and how threads wait, see `reid_tune/__init__.py`.
_PASSED_VARIABLES = (KEY_FILE_VARIABLE, "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
}


@contextmanager
def ray_session(address: str | None = None, key: str | None = None) -> Iterator[None]:
    """Connect to Ray for the block: start a cluster on this machine, or join one. Token authentication is always on.

    Args:
        address: `HOST:6379`, or `auto` for the cluster of which this machine is a node; None for a local cluster.
        key: The encryption key. Workers of a local cluster find it in their environment. Those of other nodes find it
            in the file that REID_TUNE_ENCRYPTION_KEY_FILE names, as anything passed to them can be read in the
            cluster.

    Raises:
        InputError: no cluster answers, or this machine may not or cannot join it.
        InfrastructureError: Ray cannot be started on this machine.
    """
    if address is not None and key is not None and not os.environ.get(KEY_FILE_VARIABLE):
        raise InputError(
            f"with --address the encryption key must be in a file that every node has: name it in {KEY_FILE_VARIABLE}."
        )
    set_variables(_WORKER_SETTINGS | _TUNE_SETTINGS | {"RAY_AUTH_MODE": "token"})
    if address is None:
        with temporary_variables({} if key is None else {KEY_VARIABLE: key}), _start_local():
            yield
    else:
        with _join(address):
            yield


@cache
def _local_token() -> str:
    """Token of local clusters, one for the process: Ray reads it once, even where several clusters follow."""
    return secrets.token_hex(32)


@contextmanager
def _start_local() -> Iterator[None]:
    set_variables({"RAY_AUTH_TOKEN": _local_token()})
    with session_folder() as folder:
        temporary_files = folder / "t"
        temporary_files.mkdir()
        # Of all processes that Ray starts: what killed ones leave is removed with the folder.
        with (
            temporary_variables({"TMPDIR": str(temporary_files)}),
            loopback_only(),
            _connect(folder, **local_cluster_options(str(folder / RAY_FOLDER))),
        ):
            yield


@contextmanager
def _join(address: str) -> Iterator[None]:
    cluster_address = find_cluster(address)
    variables = _WORKER_SETTINGS | {name: os.environ[name] for name in _PASSED_VARIABLES if os.environ.get(name)}
    # The variables of a Ray job reach its processes anyway, and Ray refuses to set them twice.
    for name in _job_variables():
        variables.pop(name, None)
    with _connect(address=cluster_address, runtime_env={"env_vars": variables}):
        yield


def _job_variables() -> dict[str, str]:
    """Environment variables of the Ray job that this process is; empty where it is not a Ray job."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return dict((job.get("runtime_env") or {}).get("env_vars") or {})


@contextmanager
def _connect(folder: Path | None = None, **options: Any) -> Iterator[None]:
    """Connect to Ray for the block, and watch the connection; `folder` is emptied if Ray is lost."""
    with quick_imports():
        import ray

    hide_messages()
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level="error", configure_logging=True, **options)
    except Exception as error:  # Ray raises a bare Exception where its processes do not answer.
        raise _start_error(options["address"], error) from None
    if threading.current_thread() is threading.main_thread():  # Ray, too, sets handlers there only.
        # Ray's handler would end this process at once.
        signal.signal(signal.SIGTERM, terminate or signal.SIG_DFL)
    try:
        with exit_when_cluster_is_lost(folder):
            yield
    finally:
        ray.shutdown()


def _start_error(address: str, error: Exception) -> ReidTuneError:
    """Return the error for Ray's error at the start of a cluster, or at a connection to one."""
    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    if address == "local":
        return InfrastructureError(
            f"Ray cannot be started on this machine ({first_line}): free memory, and space in {tempfile.gettempdir()} "
            "and /dev/shm, and try again."
        )
    return InputError(
        f"--address {address}: this machine cannot join the cluster ({first_line}): run the sweep on one of its nodes, "
        "or submit it with --submit."
    )
