"""The runs of a source on Ray Tune."""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.error import TuneError

from reid_tune.environment import set_defaults
from reid_tune.errors import InfrastructureError, ReidTuneError
from reid_tune.execution.ray_private import keep_secrets_out_of_trials, remove_orphaned_groups
from reid_tune.execution.run_source import RunSource
from reid_tune.execution.tune_bridge import PollCallback, TuneBridge
from reid_tune.execution.worker import make_trial_config, run_distributed, run_single_worker
from reid_tune.storage.s3 import S3Store

__all__ = ["run_all"]


def run_all(
    source: RunSource,
    capacity: Callable[[], int],
    workers: int,
    scratch: Path,
    timeout: float,
    remote: S3Store | None = None,
) -> None:
    """Run until the source is done; Ray's own files are written to `scratch`, which is removed afterwards.

    A run of one worker is a Tune function in a fresh process. A run of several is Ray Train's trainer in a Tune
    function. Ray's snapshots are never read: a new process builds a new source from the log.

    Args:
        source: The source of runs.
        capacity: Returns the number of runs that fit on the cluster; called once a second, as nodes come and go.
        workers: Workers of each run.
        scratch: Folder for Ray's own files.
        timeout: Seconds without a report after which a run is given up.
        remote: Store for Ray Train's own files where nodes do not share `scratch`; emptied afterwards, too.

    Raises:
        ReidTuneError: the source raised it; Ray then ends the runs, which continue when the sweep is resumed.
        InfrastructureError: Ray Tune failed, or `scratch` cannot be written.
    """
    storage = str(remote or scratch)
    # Also where nothing is left to run: a driver that was killed at the end of its runs has left its files.
    with _temporary_files(scratch, remote), _translate_errors(scratch):
        if source.is_done():
            return
        keep_secrets_out_of_trials()
        bridge = TuneBridge(source, capacity, lambda attempt: make_trial_config(attempt, storage), timeout)
        with _quiet(scratch):
            try:
                _make_tuner(bridge, workers, scratch).fit()
            except Exception:  # Where the source has failed, too, its error has the reason.
                if bridge.error is None:
                    raise
        remove_orphaned_groups()
    if bridge.error is not None:
        raise bridge.error


def _make_tuner(bridge: TuneBridge, workers: int, scratch: Path) -> tune.Tuner:
    trainable = tune.with_resources(run_single_worker, _make_bundles)
    if workers > 1:
        # No CPU for the driver of a run: its workers take all.
        trainable = tune.with_resources(run_distributed, {"node:__internal_head__": 0.001})
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=bridge.searcher, scheduler=bridge.scheduler, num_samples=-1, reuse_actors=False
        ),
        run_config=tune.RunConfig(
            name=f"ray-{time.time_ns()}", storage_path=str(scratch), verbose=0, callbacks=[PollCallback(bridge)]
        ),
    )


def _make_bundles(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return the resources of a run with one worker; attempts of one run may differ in their share of a GPU."""
    return tune.PlacementGroupFactory([{"CPU": config["threads"], "GPU": config["gpus"], **config["custom"]}])


@contextlib.contextmanager
def _temporary_files(scratch: Path, remote: S3Store | None) -> Iterator[None]:
    """Delete Ray's own files after the block."""
    try:
        yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(ReidTuneError):
            if remote:
                remote.remove_tree("")


@contextlib.contextmanager
def _translate_errors(scratch: Path) -> Iterator[None]:
    """Raise errors of Ray Tune within the block as an InfrastructureError."""
    try:
        yield
    except (OSError, ValueError) as error:  # about Ray's own files, which are not needed again
        if isinstance(error, ValueError) and "experiment snapshot" not in str(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else "Ray Tune's files are missing there"
        raise InfrastructureError(
            f"cannot write {scratch}: {reason}; nothing finished is lost: free space or repair the disk, and "
            "continue with --resume auto."
        ) from None
    except TuneError as error:
        last_line = str(error).strip().splitlines()[-1]
        raise InfrastructureError(f"Ray Tune failed ({last_line}): continue with --resume auto.") from None


@contextlib.contextmanager
def _quiet(scratch: Path) -> Iterator[None]:
    """Keep Tune's boxes and log lines off the terminal, which the live table uses."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    set_defaults({"PYTHONWARNINGS": "ignore"})
    with (scratch / "output.txt").open("a") as file, contextlib.redirect_stdout(file):
        yield
