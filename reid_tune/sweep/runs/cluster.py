"""Ray for one sweep."""

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reid_tune.errors import InputError
from reid_tune.spec.secret import KEY
from reid_tune.sweep.settings import Resources

__all__ = ["Placement", "local_cluster", "place"]


@dataclass(frozen=True)
class Placement:
    """What one worker gets, and how many runs fit at once; fewer than one GPU is a share of one."""

    cpus: int
    gpus: float
    at_once: int


@contextmanager
def local_cluster(key: str | None = None) -> Iterator[None]:
    """Start Ray on this machine for the block: without dashboard, with a token of its own.

    Args:
        key: The encryption key, which this process and those of Ray find in their environment and nowhere else.
    """
    with _in_environment(key), _ray():
        yield


@contextmanager
def _in_environment(key: str | None) -> Iterator[None]:
    before = os.environ.get(KEY)
    if key is not None:
        os.environ[KEY] = key
    try:
        yield
    finally:
        os.environ.pop(KEY, None)
        if before is not None:
            os.environ[KEY] = before


@contextmanager
def _ray() -> Iterator[None]:
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
        RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0",
        RAY_TRAIN_METRICS_ENABLED="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",
        TUNE_GLOBAL_CHECKPOINT_S="1000000000",
        TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
        TUNE_MAX_PENDING_TRIALS_PG="1000",
    )
    # Without GPUs Ray would hide what torch finds; workers choose their device themselves.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    folder, terminate = tempfile.mkdtemp(prefix="reid-tune-"), signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        configure_logging=True,
        _temp_dir=folder,
        _node_ip_address="127.0.0.1",
    )
    # Ray's handler would end this process at once.
    signal.signal(signal.SIGTERM, terminate or signal.SIG_DFL)
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def place(resources: Resources, workers: int) -> Placement:
    """What each worker of a run gets on the cluster as it is.

    Raises:
        InputError: not one run fits.
    """
    import ray

    have = ray.cluster_resources()
    gpus, cpus = int(have.get("GPU", 0)), int(have.get("CPU", 0))
    wanted = resources.gpus_per_worker
    per_worker = (1 if gpus else 0) if wanted == "auto" else wanted
    fits = cpus // (workers * resources.cpus_per_worker)
    if per_worker:
        # 1 / 0.1 is 10 shares of each GPU, though ten times 0.1 is not 1 for a computer.
        of_one = int(round(1 / per_worker, 6)) if per_worker < 1 else 1
        fits = min(fits, gpus * of_one // (workers * max(1, int(per_worker))))
    if fits < 1:
        raise InputError(
            f"resources.cpus_per_worker = {resources.cpus_per_worker}, gpus_per_worker = {wanted}: "
            f"a run of {workers} worker(s) wants {workers * resources.cpus_per_worker} CPU and "
            f"{workers * per_worker:g} GPU, but the cluster has {cpus} CPU and {gpus} GPU: "
            "lower cpus_per_worker, gpus_per_worker, workers or refit_workers."
        )
    return Placement(resources.cpus_per_worker, per_worker, min(fits, resources.max_concurrent or fits))
