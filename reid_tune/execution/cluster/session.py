"""Ray for the time of a sweep."""

import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from reid_tune.config.encryption_key import KEY_FILE_VARIABLE, KEY_VARIABLE
from reid_tune.environment import set_variables, temporary_variables
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.execution.cluster.discovery import find_cluster
from reid_tune.execution.cluster.watchdog import exit_when_cluster_is_lost
from reid_tune.execution.ray_private import local_cluster_options

__all__ = ["ray_session"]

_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # seconds that a report of several workers waits at most
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # which would write each line of a run's log twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Without GPUs Ray would hide what torch finds; workers choose their device themselves.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# To the workers of other nodes: the name of a file, and how threads wait, see `reid_tune/__init__.py`.
_PASSED_ON = (KEY_FILE_VARIABLE, "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
}


@contextmanager
def ray_session(address: str | None = None, key: str | None = None) -> Iterator[None]:
    """Ray for the block: a cluster of its own on this machine, or the one at an address. With tokens always.

    Args:
        address: `HOST:6379`, or `auto` for the cluster of which this machine is a node.
        key: The encryption key. Own workers find it in their environment; those of other nodes in the file that
            REID_TUNE_ENCRYPTION_KEY_FILE names, as whatever else reaches them can be read in the cluster.

    Raises:
        InputError: there is no cluster, or this machine may not or cannot join it.
    """
    if address is not None and key is not None and not os.environ.get(KEY_FILE_VARIABLE):
        raise InputError(
            f"with --address the encryption key must be in a file that every node has: name it in {KEY_FILE_VARIABLE}."
        )
    set_variables(_SETTINGS | _TUNE | {"RAY_AUTH_MODE": "token"})
    if address is None:
        with temporary_variables({} if key is None else {KEY_VARIABLE: key}), _own():
            yield
    else:
        with _joined(address):
            yield


@cache
def _token() -> str:
    """The token of own clusters, one for the process: Ray reads it once, also where several clusters follow."""
    return secrets.token_hex(32)


@contextmanager
def _own() -> Iterator[None]:
    set_variables({"RAY_AUTH_TOKEN": _token()})
    folder = tempfile.mkdtemp(prefix="reid-tune-")
    try:
        with _ray(**local_cluster_options(folder)):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    found = find_cluster(address)
    variables = _SETTINGS | {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    # What a job was given reaches its processes anyway, and Ray refuses to be told twice.
    for name in _of_this_job():
        variables.pop(name, None)
    with _ray(address=found, runtime_env={"env_vars": variables}):
        yield


def _of_this_job() -> dict[str, str]:
    """The variables that this process has been given as a Ray job; none where it is none."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    return dict((job.get("runtime_env") or {}).get("env_vars") or {})


@contextmanager
def _ray(**how: Any) -> Iterator[None]:
    import ray

    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, logging_level="error", configure_logging=True, **how)
    except (ConnectionError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        if how["address"] == "local":
            raise InfrastructureError(f"Ray cannot be started on this machine: {first}") from None
        raise InputError(
            f"--address {how['address']}: this machine cannot join the cluster ({first}): run the sweep on one of its "
            "nodes, or hand it in with --submit."
        ) from None
    # Ray's handler would end this process at once.
    signal.signal(signal.SIGTERM, terminate or signal.SIG_DFL)
    try:
        with exit_when_cluster_is_lost(ray.get_runtime_context().gcs_address):
            yield
    finally:
        ray.shutdown()
