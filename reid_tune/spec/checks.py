"""Faults between fields, warnings, and what this version does not do yet."""

from collections.abc import Collection
from typing import Any

from reid_tune.errors import InputError
from reid_tune.spec.effects import idle_fields
from reid_tune.spec.experiment import Experiment

__all__ = ["faults", "notes", "require_built", "sampling_faults"]

OPTIMIZERS = ("Adam", "AdamW", "SGD")

# Fields that are accepted and described, but not built: their inactive values.
_NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "encryption_key": (None, ""),
    "model.pretrained_model_path": (None, ""),
    "model.input_channels": (3,),
    "model.with_center_loss": (False,),
    "train.num_gpus": (1,),
    "train.optim.lr_monitor": ("val_loss",),
    "evaluate.num_gpus": (1,),
    "evaluate.output_sampled_matches_plot": (None, ""),
    "inference.num_gpus": (1,),
}


def faults(experiment: Experiment) -> list[str]:
    """All rules between fields that the experiment breaks, each with keys and values."""
    wrong = sampling_faults(experiment)
    wrong += [
        f"{idle.key} = {experiment.value(idle.key)!r} has no effect, because {idle.reason}: remove it."
        for idle in idle_fields(experiment)
        if idle.deliberate
    ]
    return wrong


def sampling_faults(experiment: Experiment) -> list[str]:
    """The rules that make a training impossible, without those about fields that have no effect."""
    model, dataset = experiment.model, experiment.dataset
    wrong = []
    if dataset.batch_size % dataset.num_instances:
        wrong.append(
            f"dataset.batch_size = {dataset.batch_size} is not a multiple of "
            f"dataset.num_instances = {dataset.num_instances}: a batch is identities x instances."
        )
    elif dataset.batch_size == dataset.num_instances and "triplet" in dataset.sampler:
        wrong.append(
            f"dataset.batch_size = {dataset.batch_size} holds one identity of dataset.num_instances = "
            f"{dataset.num_instances} images, and the triplet loss needs two: raise batch_size."
        )
    center = "center" in model.metric_loss_type
    if center != model.with_center_loss:
        wrong.append(
            f"model.metric_loss_type = {model.metric_loss_type!r} does not go with "
            f"model.with_center_loss = {model.with_center_loss}: "
            + ("set it to center or triplet_center." if not center else "set with_center_loss: true.")
        )
    return wrong


def notes(experiment: Experiment, given: Collection[str] | None = None) -> list[str]:
    """Warnings, and one line with the fields that have no effect; of `given` only, where that is not None."""
    optim, epochs = experiment.train.optim, experiment.train.num_epochs
    lines = []
    key = "warmup_epochs" if optim.warmup_method == "cosine" else "warmup_iters"
    if getattr(optim, key) >= epochs:
        lines.append(
            f"warning: train.optim.{key} = {getattr(optim, key)} is not below train.num_epochs = {epochs}: "
            "the learning rate never reaches base_lr."
        )
    idle = [field for field in idle_fields(experiment) if given is None or field.key in given]
    if idle:
        reasons: dict[str, list[str]] = {}
        for field in idle:
            reasons.setdefault(field.reason, []).append(field.key.rsplit(".", 1)[-1])
        lines.append("no effect here: " + "; ".join(f"{', '.join(keys)} ({why})" for why, keys in reasons.items()))
    return lines


def require_built(experiment: Experiment) -> None:
    """Refuse a task whose spec asks for something that this version does not do.

    Raises:
        InputError: names every such field with its value.
    """
    asked = [
        key if key == "encryption_key" else f"{key} = {experiment.value(key)!r}"
        for key, inactive in _NOT_BUILT.items()
        if experiment.value(key) not in inactive
    ]
    if experiment.model.stride_size != (16, 16):
        asked.append(f"model.stride_size = {list(experiment.model.stride_size)}")
    if experiment.model.pretrain_hw_ratio != 2.0:
        asked.append(f"model.pretrain_hw_ratio = {experiment.model.pretrain_hw_ratio}")
    if experiment.train.optim.name not in OPTIMIZERS:
        asked.append(f"train.optim.name = {experiment.train.optim.name!r} (has {', '.join(OPTIMIZERS)})")
    if asked:
        raise InputError(f"not supported in this version: {'; '.join(asked)}. Remove or reset what is named.")
