"""A single training as a run in MLflow: its own event log, which a sender follows."""

import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
from reid_tune.tracking.cursor import cursor_of
from reid_tune.tracking.mlflow_names import user
from reid_tune.tracking.sender import follow_log
from reid_tune.tracking.store import connection_error, redact, tracking_uri, with_credentials
from reid_tune.training.history_plot import plot_history
from reid_tune.training.system_metrics import SystemMonitor

__all__ = ["EpochLog", "track_training"]


class EpochLog:
    """Writes each epoch of a training that is tracked, once into its log, with what it took; a context manager.

    Args:
        directory: Of the checkpoints.
        device: Where it computes.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        self._log = EventLog(directory / EVENTS, held=True)
        self._known = {event.epoch for event in read_events(self._log.path) if isinstance(event, TrainingEpoch)}
        self._usage = SystemMonitor(device)

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Write an epoch, unless the log has it."""
        values, usage = dict(metrics), self._usage.collect()
        epoch = values.pop("epoch")
        if epoch not in self._known:
            self._log.append(TrainingEpoch(epoch=epoch, metrics=values, usage=usage))
            self._known.add(epoch)

    def __enter__(self) -> Self:
        self._usage.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._usage.__exit__()
        self._log.close()


@contextmanager
def track_training(experiment: Experiment, directory: Path, *, resumed: bool) -> Iterator[None]:
    """Record the training within the block in the store of MLFLOW_TRACKING_URI; a store that is away stops nothing.

    The experiment is that of MLFLOW_EXPERIMENT_NAME, else `train`; the run that of MLFLOW_RUN_NAME, else the name of
    the results folder.

    Args:
        directory: Of its checkpoints.
        resumed: Whether it goes on in the run that is there; else it is another run.

    Raises:
        InputError: the training folders cannot be read, or another training is tracked in this directory.
    """
    folders = list(experiment.dataset.train_folders)
    data = {"folders": folders, "fingerprint": fingerprint(*folders)}
    if not resumed:
        _put_aside(directory / EVENTS)
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
        if found := connection_error(uri):
            _warn(found)
        with follow_log(log.path, uri, partial(_close, log), _warn, f"reid-tune sync {directory}"):
            yield
    print(f"MLflow: run {header.name} of the experiment {header.experiment} in {redact(uri)}", file=sys.stderr)


def _put_aside(path: Path) -> None:
    """Keep the log of an earlier training, of which MLflow may not have all."""
    if header := _first_event(path):
        kept = path.with_name(f"{path.stem}-{header.uid}{path.suffix}")
        path.rename(kept)
        if (place := cursor_of(path)).exists():
            place.rename(cursor_of(kept))


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
        with suppress(ReidTuneError, OSError):  # The training is done, with a picture or without.
            plot_history(epochs, log.path.with_name("schedule.png"))
            log.append(ArtifactWritten(path="schedule.png", folder=""))
    log.append(end)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
