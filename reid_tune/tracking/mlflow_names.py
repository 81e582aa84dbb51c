"""What a run's numbers, settings and data are called in MLflow."""

import getpass
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from reid_tune.config.experiment import unflatten
from reid_tune.journal.events import DriverStarted, EpochReported, Event, StageDone, TrainingEpoch

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

__all__ = [
    "dataset_input",
    "milliseconds",
    "metric_points",
    "public_spec",
    "score_points",
    "search_tags",
    "format_value",
    "source_tags",
    "spec_yaml",
    "parameter_text",
    "user",
]

_SCORES = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
_TRAINING = {"lr": "learning_rate", "images_per_second": "images_per_second", "accuracy": "accuracy"}
_SECRET_OR_PLACE = ("encryption_key", "results_dir")


def milliseconds(event: Event) -> int:
    """The time of an event since the epoch."""
    return round(event.time * 1000)


def metric_points(event: EpochReported | TrainingEpoch) -> "list[Metric]":
    """The metrics of a `report`: `val/mAP`, `train/loss` and its parts, and `system/...` as MLflow's own monitor."""
    from mlflow.entities import Metric

    named = {_named(key): value for key, value in event.metrics.items()} | event.usage
    time, epoch = milliseconds(event), event.epoch
    return [Metric(key, value, time, epoch) for key, value in named.items() if key and value is not None]


def _named(key: str) -> str | None:
    """None for what is no result: counts that never change, and one minus mAP."""
    if key in _SCORES:
        return f"val/{key}"
    if key.partition("/")[0] == "loss":
        return f"train/{key}"
    return f"train/{_TRAINING[key]}" if key in _TRAINING else None


def score_points(model: Mapping[str, Any], event: StageDone) -> "list[Metric]":
    """A model's results in the stage `test`: `test/mAP`, and `test/re-ranked/mAP` where it was re-ranked."""
    from mlflow.entities import Metric

    time = milliseconds(event)
    return [
        Metric(f"{folder}/{name}", model[kind][name], time, 0)
        for kind, folder in (("plain", "test"), ("re_ranked", "test/re-ranked"), ("tuned", "test/tuned"))
        if model.get(kind)
        for name in _SCORES
        if name in model[kind]
    ]


def public_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and values without the encryption key, and without folders that mean nothing elsewhere."""
    return {key: spec[key] for key in sorted(spec) if key.rpartition(".")[2] not in _SECRET_OR_PLACE}


def spec_yaml(spec: Mapping[str, Any]) -> str:
    """Dotted keys as the file that `reid-tune train -e` reads."""
    return yaml.safe_dump(unflatten(dict(spec)), sort_keys=False)


def parameter_text(value: Any) -> str:
    """A value as a parameter."""
    return value if isinstance(value, str) else json.dumps(value)


def format_value(value: Any) -> str:
    """A value as a tag for people, with four digits; the parameter has all."""
    return f"{value:.4g}" if isinstance(value, float) else parameter_text(value)


def search_tags(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Tags that tell what a run changes from the hundred parameters that all runs share."""
    return {f"search.{key}": format_value(value) for key, value in public_spec(parameters).items()}


def user() -> str | None:
    """The name of who runs this process; None for a number without one, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def source_tags(driver: DriverStarted) -> dict[str, str]:
    """Who has started it, by which command and from which commit, as MLflow's pages look for it."""
    commit = driver.environment.get("commit")
    command = " ".join(["reid-tune", *driver.command[1:]])
    found = {"mlflow.user": driver.user, "mlflow.source.name": command, "mlflow.source.git.commit": commit}
    return {key: value for key, value in found.items() if value}


def dataset_input(folders: "list[str]", digest: str, context: str) -> "DatasetInput":
    """Image folders as a data set of a run.

    Args:
        digest: Of all their names and bytes, at most 36 characters.
        context: `training` or `test`.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name = ", ".join(_short_names(folders))
    source = json.dumps({"folders": folders})
    return DatasetInput(Dataset(name, digest, "local", source), [InputTag("mlflow.data.context", context)])


def _short_names(folders: "list[str]") -> Iterator[str]:
    for folder in folders:
        yield "/".join(PurePosixPath(folder).parts[-2:])
