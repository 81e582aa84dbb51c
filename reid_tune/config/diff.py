"""Differences between a spec and the one that a checkpoint was trained with."""

from collections.abc import Mapping
from typing import Any

from reid_tune.config.experiment import Experiment, flatten
from reid_tune.config.model import last_stride

__all__ = ["changed_values", "changes_training", "network_differences"]

# Keys of these sections decide how a network is trained and scored, except the following ones.
_SECTIONS = ("model.", "dataset.", "train.")
_WITHOUT_EFFECT = (
    "dataset.num_workers",
    "dataset.val_batch_size",
    "train.checkpoint_interval",
    "train.validation_interval",
    "train.results_dir",
)

# Keys that a checkpoint fixes: its network, and the preparation of its images.
_FIXED_KEYS = (
    "model.backbone",
    "model.last_stride",
    "model.non_local",
    "model.stride_size",
    "model.semantic_weight",
    "model.input_channels",
    "model.input_width",
    "model.input_height",
    "model.pooling",
    "model.parts",
    "model.neck",
    "dataset.pixel_mean",
    "dataset.pixel_std",
)


def network_differences(experiment: Experiment, trained: Experiment) -> list[str]:
    """Return one line for each key in which the networks or the image preparation of two specs differ."""
    pairs = [(key, _network_value(trained, key), _network_value(experiment, key)) for key in _FIXED_KEYS]
    return [f"{key} is {old!r} in the checkpoint and {new!r} in the spec" for key, old, new in pairs if old != new]


def _network_value(experiment: Experiment, key: str) -> Any:
    """Return the value of a key of the network, its default resolved."""
    return last_stride(experiment.model) if key == "model.last_stride" else experiment.value(key)


def changes_training(key: str) -> bool:
    """Whether another value of a key trains another network, or scores it differently."""
    return key.startswith(_SECTIONS) and key not in _WITHOUT_EFFECT


def changed_values(experiment: Experiment, saved: Mapping[str, Any]) -> list[str]:
    """Return `key: old -> new` for each value that changes the training and differs from a saved spec."""
    before, now = flatten(saved), flatten(experiment.model_dump(mode="json"))
    keys = filter(changes_training, now)
    return [f"{key}: {before[key]} -> {now[key]}" for key in keys if key in before and before[key] != now[key]]
