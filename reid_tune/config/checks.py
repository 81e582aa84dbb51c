"""Faults between fields, warnings, and what this version does not do yet."""

import math
from collections.abc import Collection

from reid_tune.config.experiment import Experiment
from reid_tune.config.tao_keys import is_inactive_tao_key
from reid_tune.config.train import OPTIMIZERS
from reid_tune.config.unused_fields import has_triplet_loss, unused_fields

__all__ = ["find_errors", "describe_ignored_keys", "next_valid_batch_size", "find_warnings", "find_sampling_errors"]


def find_errors(experiment: Experiment) -> list[str]:
    """All rules between fields that the experiment breaks, each with keys and values."""
    wrong = find_sampling_errors(experiment)
    wrong += [
        f"{idle.key} = {experiment.value(idle.key)!r} has no effect, because {idle.reason}: remove it."
        for idle in unused_fields(experiment)
        if idle.user_set
    ]
    train = experiment.train
    if train.cuda_graphs and train.compile is not False:
        wrong.append(
            f"train.cuda_graphs = True does not go with train.compile = {train.compile}: set one of them to false."
        )
    if train.cuda_graphs and train.accumulate > 1:  # Each replay would overwrite the gradients of the chunk before.
        wrong.append(
            f"train.cuda_graphs = True does not go with train.accumulate = {train.accumulate}: set cuda_graphs: false "
            "or accumulate: 1."
        )
    return wrong


def find_sampling_errors(experiment: Experiment) -> list[str]:
    """The rules that make a training impossible, without those about fields that have no effect."""
    model, dataset = experiment.model, experiment.dataset
    wrong = []
    if dataset.batch_size % dataset.num_instances:
        wrong.append(
            f"dataset.batch_size = {dataset.batch_size} is not a multiple of "
            f"dataset.num_instances = {dataset.num_instances}: a batch is identities x instances, the next size is "
            f"{next_valid_batch_size(experiment, len(experiment.train.gpus))}."
        )
    elif dataset.batch_size == dataset.num_instances and has_triplet_loss(experiment):
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
    elif (model.metric_loss_type, dataset.sampler) in (("center", "triplet"), ("triplet_center", "softmax")):
        wrong.append(
            f"model.metric_loss_type = {model.metric_loss_type!r} does not go with dataset.sampler = "
            f"{dataset.sampler!r}: set sampler to softmax_triplet."
        )
    if experiment.train.optim.name not in OPTIMIZERS:
        wrong.append(
            f"train.optim.name = {experiment.train.optim.name!r} is not an optimizer: choose one of "
            f"{', '.join(OPTIMIZERS)}."
        )
    return wrong


def next_valid_batch_size(experiment: Experiment, workers: int) -> int:
    """The smallest batch, not below `dataset.batch_size`, of whole identities and of equal shares for the workers."""
    unit = math.lcm(experiment.dataset.num_instances, workers)
    return unit * math.ceil(experiment.dataset.batch_size / unit)


def describe_ignored_keys(given: Collection[str]) -> list[str]:
    """One line with the keys of a spec that the reference knows and that do nothing there; none without such keys."""
    foreign = sorted(key for key in given if is_inactive_tao_key(key))
    return [f"left out, as nothing comes of it: {', '.join(foreign)}"] if foreign else []


def find_warnings(experiment: Experiment, given: Collection[str] | None = None) -> list[str]:
    """Warnings, and one line with the fields that have no effect; of `given` only, where that is not None."""
    optim, epochs = experiment.train.optim, experiment.train.num_epochs
    lines = []
    key = "warmup_epochs" if optim.warmup_method == "cosine" else "warmup_iters"
    if getattr(optim, key) >= epochs:
        lines.append(
            f"warning: train.optim.{key} = {getattr(optim, key)} is not below train.num_epochs = {epochs}: "
            "the learning rate never reaches base_lr."
        )
    idle = [field for field in unused_fields(experiment) if given is None or field.key in given]
    if idle:
        reasons: dict[str, list[str]] = {}
        for field in idle:
            reasons.setdefault(field.reason, []).append(field.key.rsplit(".", 1)[-1])
        lines.append("no effect here: " + "; ".join(f"{', '.join(keys)} ({why})" for why, keys in reasons.items()))
    return lines
