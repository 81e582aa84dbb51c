"""Train a run of a sweep again, and compare its metrics."""

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


_NOT_COMPARED = {"epoch", "images_per_second"}


def retrain(command: ReproduceCommand) -> dict[int, dict[str, Any]]:
    """Run the training in a separate process with all output on stderr, and return its metrics by 1-based epoch.

    Raises:
        InputError: its folder has a training already, which `train` would resume.
        RunFailedError: the training failed; its reason is on stderr.
    """
    if (command.results_folder / LATEST).exists():
        raise InputError(f"{command.results_folder} has a training already: remove that folder to train again.")
    arguments = [sys.executable, "-P", "-m", "reid_tune", *command.arguments]
    status = subprocess.run(arguments, env=os.environ | command.environment, stdout=2, check=False).returncode
    if status:
        raise RunFailedError(f"the training ended with status {status}.")
    from reid_tune.checkpoints.checkpoint import load_checkpoint

    history = load_checkpoint(command.results_folder / LATEST, find_passphrase()).history
    return {metrics["epoch"]: metrics for metrics in history}


def compare_metrics(run: RunState, epochs: dict[int, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Compare the metrics of a run's last epoch in the sweep with those of another training.

    Args:
        run: State of the run. One that was stopped early is compared at the epoch where it was stopped.
        epochs: Metrics by 1-based epoch from `retrain`.

    Returns:
        By metric the values `sweep` and `again`, and whether they are `equal`.
    """
    before, now = run.epochs[run.epoch], epochs[run.epoch]
    return {
        name: {"sweep": before[name], "again": now[name], "equal": before[name] == now[name]}
        for name in before
        if name in now and name not in _NOT_COMPARED
    }
