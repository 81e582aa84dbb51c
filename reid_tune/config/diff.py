"""Differences between a spec and the one that a checkpoint was trained with."""

from collections.abc import Mapping
from typing import Any

from reid_tune.config.experiment import Experiment, flatten

__all__ = ["changed_values", "network_differences"]

# Keys that a checkpoint fixes: its network, and the preparation of its images.
_FIXED_KEYS = (
    "model.backbone",
    "model.last_stride",
    "model.stride_size",
    "model.semantic_weight",
    "model.input_channels",
    "model.input_width",
    "model.input_height",
    "model.pooling",
    "model.neck",
    "dataset.pixel_mean",
    "dataset.pixel_std",
)


def network_differences(experiment: Experiment, trained: Experiment) -> list[str]:
    """Return one line for each key in which the networks or the image preparation of two specs differ."""
    return [
        f"{key} is {trained.value(key)!r} in the checkpoint and {experiment.value(key)!r} in the spec"
        for key in _FIXED_KEYS
        if trained.value(key) != experiment.value(key)
    ]


def changed_values(experiment: Experiment, saved: Mapping[str, Any]) -> list[str]:
    """Return `key: old -> new` for each value of model, dataset and train that differs from a saved spec."""
    before, now = flatten(saved), flatten(experiment.model_dump(mode="json"))
    keys = (key for key in now if key.startswith(("model.", "dataset.", "train.")) and not key.endswith("results_dir"))
    return [f"{key}: {before[key]} -> {now[key]}" for key in keys if key in before and before[key] != now[key]]
