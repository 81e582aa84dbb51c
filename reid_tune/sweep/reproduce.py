"""Training a run of a sweep again, and whether the same metrics came out."""

import os
import subprocess
import sys
from typing import Any

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.errors import InputError, RunFailedError
from reid_tune.journal.state import RunState
from reid_tune.report.reproduce import ReproduceCommand

__all__ = ["compare_metrics", "retrain"]


_TIMES = {"epoch", "images_per_second"}


def retrain(again: ReproduceCommand) -> dict[int, dict[str, Any]]:
    """Train with all output on stderr; returns the metrics by 1-based epoch.

    Raises:
        InputError: there is such a training already, which `train` would take for its own.
        RunFailedError: the training has failed, and has said why.
    """
    if (again.results_folder / LATEST).exists():
        raise InputError(f"{again.results_folder} holds a training already: remove that folder to train again.")
    command = [sys.executable, "-P", "-m", "reid_tune", *again.arguments]
    status = subprocess.run(command, env=os.environ | again.environment, stdout=2, check=False).returncode
    if status:
        raise RunFailedError(f"the training ended with status {status}.")
    from reid_tune.checkpoints.checkpoint import load_checkpoint

    history = load_checkpoint(again.results_folder / LATEST, find_passphrase()).history
    return {metrics["epoch"]: metrics for metrics in history}


def compare_metrics(run: RunState, epochs: dict[int, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each metric of a run's last epoch as it was (`sweep`) and as it is now (`again`), and whether they are `equal`.

    Args:
        epochs: From `train_again`; a run that was stopped early is compared at the epoch where it was stopped.
    """
    before, now = run.epochs[run.epoch], epochs[run.epoch]
    return {
        name: {"sweep": before[name], "again": now[name], "equal": before[name] == now[name]}
        for name in before
        if name in now and name not in _TIMES
    }
