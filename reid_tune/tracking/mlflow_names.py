"""Names and formats of a run's metrics, parameters, tags and data sets in MLflow."""

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
_TRAINING_METRICS = {"lr": "learning_rate", "images_per_second": "images_per_second", "accuracy": "accuracy"}
_PRIVATE_KEYS = ("encryption_key", "results_dir")


def milliseconds(event: Event) -> int:
    """Return the time of an event in milliseconds since the epoch."""
    return round(event.time * 1000)


def metric_points(event: EpochReported | TrainingEpoch) -> "list[Metric]":
    """Return the metrics of an epoch: `val/mAP`, `train/loss` and its parts, and `system/...` as MLflow names them."""
    from mlflow.entities import Metric

    values = {_metric_name(key): value for key, value in event.metrics.items()} | event.usage
    time, epoch = milliseconds(event), event.epoch
    return [Metric(key, value, time, epoch) for key, value in values.items() if key and value is not None]


def _metric_name(key: str) -> str | None:
    """Return the name of a metric; None for values that are not results: constant counts, and one minus mAP."""
    if key in _SCORES:
        return f"val/{key}"
    if key.partition("/")[0] == "loss":
        return f"train/{key}"
    return f"train/{_TRAINING_METRICS[key]}" if key in _TRAINING_METRICS else None


def score_points(model: Mapping[str, Any], event: StageDone) -> "list[Metric]":
    """Return the results of a model in the stage `test`: `test/mAP`, and `test/re-ranked/mAP` if it was re-ranked."""
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
    """Return dotted keys and values without the encryption key and without folders of this machine."""
    return {key: spec[key] for key in sorted(spec) if key.rpartition(".")[2] not in _PRIVATE_KEYS}


def spec_yaml(spec: Mapping[str, Any]) -> str:
    """Return dotted keys and values as the file that `reid-tune train -e` reads."""
    return yaml.safe_dump(unflatten(dict(spec)), sort_keys=False)


def parameter_text(value: Any) -> str:
    """Return a value as the text of a parameter."""
    return value if isinstance(value, str) else json.dumps(value)


def format_value(value: Any) -> str:
    """Return a value as the text of a tag, with four digits; the parameter has all digits."""
    return f"{value:.4g}" if isinstance(value, float) else parameter_text(value)


def search_tags(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return tags with the parameters that a run sets, which are hard to find among the hundred of every run."""
    return {f"search.{key}": format_value(value) for key, value in public_spec(parameters).items()}


def user() -> str | None:
    """Return the name of this process's user; None if the user has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def source_tags(driver: DriverStarted) -> dict[str, str]:
    """Return the user, command and commit of a driver in the tags that MLflow's pages show."""
    commit = driver.environment.get("commit")
    command = " ".join(["reid-tune", *driver.command[1:]])
    tags = {"mlflow.user": driver.user, "mlflow.source.name": command, "mlflow.source.git.commit": commit}
    return {key: value for key, value in tags.items() if value}


def dataset_input(folders: "list[str]", digest: str, context: str) -> "DatasetInput":
    """Return image folders as a data set of a run.

    Args:
        digest: Digest of all file names and contents, at most 36 characters.
        context: Use of the data set, `training` or `test`.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    name = ", ".join(_short_names(folders))
    source = json.dumps({"folders": folders})
    return DatasetInput(Dataset(name, digest, "local", source), [InputTag("mlflow.data.context", context)])


def _short_names(folders: "list[str]") -> Iterator[str]:
    for folder in folders:
        yield "/".join(PurePosixPath(folder).parts[-2:])
