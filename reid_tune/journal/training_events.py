"""The events of a single training that is tracked in MLflow."""

from dataclasses import dataclass
from typing import Any

from reid_tune.journal.event_line import EventRecord

__all__ = ["TrainingEpoch", "TrainingHeader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingHeader(EventRecord):
    """The first event of a single training that is tracked in MLflow.

    Attributes:
        name: Name of the run in MLflow.
        experiment: Name of the experiment in MLflow.
        uid: Random hexadecimal digits that identify the training in MLflow.
        tracking_uri: Address of the MLflow server or store, without credentials.
        spec: The experiment spec by dotted keys, without the encryption key.
    """

    kind = "train"
    name: str
    experiment: str
    uid: str
    tracking_uri: str
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEpoch(EventRecord):
    """A single training that is tracked in MLflow has finished an epoch.

    Attributes:
        epoch: The epoch, from 1.
        metrics: As in `EpochReported`.
        usage: As in `EpochReported`.
    """

    kind = "epoch"
    epoch: int
    metrics: dict[str, Any]
    usage: dict[str, float]
