"""A single training as a run in MLflow: its own event log, which a sender follows."""

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch

from reid_tune.data.fingerprint import fingerprint
from reid_tune.errors import ReidTuneError
from reid_tune.events.log import Event, EventLog, read_events
from reid_tune.spec.experiment import Experiment
from reid_tune.tracking.sender import Sender
from reid_tune.tracking.store import fault, public, tracking_uri, with_credentials
from reid_tune.training.curves import schedule_plot
from reid_tune.training.usage import Usage

__all__ = ["EPOCHS", "Epochs", "recorded"]

EPOCHS = "events.jsonl"
_SENDING, _PATIENCE, _HURRY = 60.0, 8.0, 3.0  # seconds that the end waits for MLflow, while nothing arrives, in a hurry


class Epochs:
    """Writes each epoch of a training once into the log in a folder, with what it took; a context manager.

    One process at a time may write. `device` is where it computes.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        self._log = EventLog(directory / EPOCHS)
        self._known = {event["epoch"] for event in read_events(self._log.path) if event["kind"] == "report"}
        self._usage = Usage(device)

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Write an epoch, unless the log has it."""
        values, usage = dict(metrics), self._usage.take()
        epoch = values.pop("epoch")
        if epoch not in self._known:
            self._log.append("report", run=None, epoch=epoch, metrics=values, usage=usage)
            self._known.add(epoch)

    def __enter__(self) -> Self:
        self._usage.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._usage.__exit__()
        self._log.close()


@contextmanager
def recorded(experiment: Experiment, directory: Path, *, resumed: bool) -> Iterator[None]:
    """Record the training within the block in the store of MLFLOW_TRACKING_URI; a store that is away stops nothing.

    The experiment is that of MLFLOW_EXPERIMENT_NAME, else `train`; the run that of MLFLOW_RUN_NAME, else the name of
    the results folder. A training that goes on goes on in its run.

    Args:
        directory: Of its checkpoints.
        resumed: Whether it goes on from a checkpoint; else it is another run than one whose epochs are there.
    """
    path = directory / EPOCHS
    if not resumed:
        _put_aside(path)
    header = _begin(experiment, path)
    uri = with_credentials(header["tracking_uri"])
    if found := fault(uri):
        _say(f"warning: {found}")
    sender = Sender(path, uri)
    end: dict[str, str] = {"status": "KILLED"}
    try:
        yield
        end = {"status": "FINISHED"}
    except ReidTuneError as error:
        end = {"status": "FAILED", "reason": str(error)}
        raise
    finally:
        _end(path, end)
        killed = end["status"] == "KILLED"
        if not sender.close(_HURRY if killed else _SENDING, _HURRY if killed else _PATIENCE):
            _say(
                f"warning: {sender.lag} events are not in MLflow ({sender.last_error or 'it is slow'}): send them with "
                f"reid-tune sync {directory}"
            )
        else:
            _say(f"in MLflow ({public(uri)}): the run {header['name']} of the experiment {header['experiment']}")


def _put_aside(path: Path) -> None:
    past = read_events(path)
    if any(event["kind"] == "report" for event in past):
        path.rename(path.with_name(f"{path.stem}-{past[0]['uid']}{path.suffix}"))


def _begin(experiment: Experiment, path: Path) -> Event:
    with EventLog(path) as log:
        if not (past := read_events(path)):
            header = log.append(
                "train",
                name=os.environ.get("MLFLOW_RUN_NAME") or path.parent.absolute().parent.name,
                experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME") or "train",
                uid=secrets.token_hex(8),
                tracking_uri=public(tracking_uri()),
                spec=experiment.parameters(),
            )
            past = [header]
        folders = list(experiment.dataset.train_folders)
        log.append("driver", environment={"data": {"folders": folders, "fingerprint": fingerprint(*folders)}})
        return past[0]


def _end(path: Path, end: Mapping[str, str]) -> None:
    epochs = [event["metrics"] for event in read_events(path) if event["kind"] == "report"]
    with EventLog(path) as log:
        if epochs and end["status"] == "FINISHED":
            schedule_plot(epochs, path.with_name("schedule.png"))
            log.append("artifact", run=None, path="schedule.png", folder="")
        log.append("closed", **end)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
