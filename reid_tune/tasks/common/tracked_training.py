"""A single training as a run in MLflow: its event log, which a sender follows."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from reid_tune.config.experiment import Experiment
from reid_tune.data.fingerprint import fingerprint
from reid_tune.errors import InputError, ReidTuneError
from reid_tune.journal.event_log import EVENTS, EventLog, read_events, read_header
from reid_tune.journal.events import (
    ArtifactWritten,
    DriverEnded,
    DriverStarted,
    SweepHeader,
    TrainingEpoch,
    TrainingHeader,
)
from reid_tune.tracking.cursor import cursor_path
from reid_tune.tracking.mlflow_names import user
from reid_tune.tracking.sender import LogTarget, follow_log
from reid_tune.tracking.store import connection_error, redact, tracking_uri, with_credentials
from reid_tune.training.history_plot import plot_history
from reid_tune.training.system_metrics import SystemMonitor

__all__ = ["EpochLog", "track_training"]


class EpochLog:
    """Log of the epochs of a tracked training, each with its usage of the machine; a context manager.

    Args:
        directory: Folder of the checkpoints.
        device: Device of the training.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        self._log = EventLog(directory / EVENTS, held=True)
        self._logged_epochs = {event.epoch for event in read_events(self._log.path) if isinstance(event, TrainingEpoch)}
        self._monitor = SystemMonitor(device)

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Write an epoch, unless the log has it already."""
        values, usage = dict(metrics), self._monitor.collect()
        epoch = values.pop("epoch")
        if epoch not in self._logged_epochs:
            self._log.append(TrainingEpoch(epoch=epoch, metrics=values, usage=usage))
            self._logged_epochs.add(epoch)

    def __enter__(self) -> Self:
        self._monitor.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.__exit__()
        self._log.close()


@contextmanager
def track_training(experiment: Experiment, directory: Path, *, resumed: bool) -> Iterator[None]:
    """Record the training within the block in the store of MLFLOW_TRACKING_URI.

    An unreachable store does not stop the training. The experiment is MLFLOW_EXPERIMENT_NAME, by default `train`; the
    run is MLFLOW_RUN_NAME, by default the name of the results folder.

    Args:
        experiment: The spec.
        directory: Folder of the checkpoints.
        resumed: Whether the training continues the recorded run; otherwise it is a new run.

    Raises:
        InputError: the training folders cannot be read, or another process records a training in this folder.
    """
    folders = list(experiment.dataset.train_folders)
    data = {"folders": folders, "fingerprint": fingerprint(*folders)}
    if not resumed:
        _archive(directory / EVENTS)
    with EventLog(directory / EVENTS) as log:
        header = _first_event(log.path) or _begin(experiment, log)
        log.append(
            DriverStarted(
                pid=os.getpid(),
                host=socket.gethostname(),
                user=user(),
                command=sys.argv,
                resumed=resumed,
                environment={"data": data},
            )
        )
        uri = with_credentials(header.tracking_uri)
        if error := connection_error(uri):
            _warn(error)
        target = LogTarget(log.path, uri, _warn, f"reid-tune sync {directory}")
        with follow_log(target, partial(_close, log)) as sender:
            yield
    if sender.has_sent_all:  # otherwise a warning has said what is missing
        print(f"MLflow: run {header.name} of the experiment {header.experiment} in {redact(uri)}", file=sys.stderr)


def _archive(path: Path) -> None:
    """Rename the log of an earlier training, which MLflow may not have completely."""
    if header := _first_event(path):
        archived = path.with_name(f"{path.stem}-{header.uid}{path.suffix}")
        path.rename(archived)
        if (cursor := cursor_path(path)).exists():
            cursor.rename(cursor_path(archived))


def _first_event(path: Path) -> TrainingHeader | None:
    """Return the header of a training's log; None if there is no log, or an empty one.

    Raises:
        InputError: The log is that of a sweep.
    """
    header = read_header(path)
    if isinstance(header, SweepHeader):
        raise InputError(f"{path} is the log of a sweep, not of a training: set another train.results_dir.")
    return header


def _begin(experiment: Experiment, log: EventLog) -> TrainingHeader:
    header = TrainingHeader(
        name=os.environ.get("MLFLOW_RUN_NAME") or log.path.parent.absolute().parent.name,
        experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or "train",
        uid=secrets.token_hex(8),
        tracking_uri=redact(tracking_uri()),
        spec=experiment.parameters(),
    )
    log.append(header)
    return header


def _close(log: EventLog, end: DriverEnded) -> None:
    epochs = [event.metrics for event in read_events(log.path) if isinstance(event, TrainingEpoch)]
    if epochs and end.status == "FINISHED":
        with suppress(ReidTuneError, OSError):  # The training is complete, with the picture or without it.
            plot_history(epochs, log.path.with_name("schedule.png"))
            log.append(ArtifactWritten(path="schedule.png", folder=""))
    log.append(replace(end, time=time.time()))  # after the picture


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
