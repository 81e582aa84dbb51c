"""Rules between fields: errors, warnings, and keys without effect."""

import math
from collections.abc import Collection

from reid_tune.config.data_checks import find_data_errors
from reid_tune.config.experiment import Experiment
from reid_tune.config.model import has_backbone_always_loaded
from reid_tune.config.tao_keys import inactive_reason, is_tao_key
from reid_tune.config.train import COSINE_SCHEDULES, OPTIMIZERS
from reid_tune.config.unused_fields import (
    PAIR_LOSSES,
    has_identity_loss,
    has_pair_loss,
    has_triplet_loss,
    has_triplet_margin,
    unused_fields,
)
from reid_tune.errors import InputError

__all__ = [
    "describe_without_effect",
    "find_errors",
    "find_sampling_errors",
    "find_warnings",
    "require_divisible_batch",
]


# Metric losses and samplers that exclude each other.
_CONTRADICTIONS = {("center", "triplet"), *((name, "softmax") for name in ("triplet_center", *PAIR_LOSSES))}


def find_errors(experiment: Experiment) -> list[str]:
    """Return one message for each rule between fields that an experiment breaks."""
    errors = find_sampling_errors(experiment)
    errors += [
        f"{field.key} = {experiment.value(field.key)!r} has no effect, because {field.reason}: remove it."
        for field in unused_fields(experiment)
        if field.is_refused
    ]
    train = experiment.train
    if train.cuda_graphs and train.compile is not False:
        errors.append(
            f"train.cuda_graphs = True cannot be combined with train.compile = {train.compile}: set one to false."
        )
    if train.cuda_graphs and train.accumulate > 1:  # each replay would overwrite the gradients of the chunk before
        errors.append(
            f"train.cuda_graphs = True cannot be combined with train.accumulate = {train.accumulate}: "
            "set cuda_graphs: false or accumulate: 1."
        )
    return errors


def find_sampling_errors(experiment: Experiment) -> list[str]:
    """Return one message for each broken rule that makes a training impossible."""
    model, dataset = experiment.model, experiment.dataset
    errors = [*find_data_errors(experiment), *_find_margin_errors(experiment)]
    if dataset.batch_size % dataset.num_instances:
        errors.append(
            f"dataset.batch_size = {dataset.batch_size} is not a multiple of "
            f"dataset.num_instances = {dataset.num_instances}: a batch is identities x instances; the next "
            f"valid size is {_next_valid_batch_size(experiment, len(experiment.train.gpus))}."
        )
    elif dataset.batch_size == dataset.num_instances and (has_triplet_loss(experiment) or has_pair_loss(experiment)):
        errors.append(
            f"dataset.batch_size = {dataset.batch_size} has one identity with dataset.num_instances = "
            f"{dataset.num_instances} images, and the {_metric_loss(experiment)} loss needs two: raise batch_size."
        )
    if dataset.num_instances == 1 and has_pair_loss(experiment):
        errors.append(
            f"dataset.num_instances = 1 leaves no pair of an identity to the {_metric_loss(experiment)} loss: raise it."
        )
    has_center = "center" in model.metric_loss_type
    if has_center != model.with_center_loss:
        errors.append(
            f"model.metric_loss_type = {model.metric_loss_type!r} does not match "
            f"model.with_center_loss = {model.with_center_loss}: "
            + ("set it to center or triplet_center." if not has_center else "set with_center_loss: true.")
        )
    elif (model.metric_loss_type, dataset.sampler) in _CONTRADICTIONS:
        errors.append(
            f"model.metric_loss_type = {model.metric_loss_type!r} does not match dataset.sampler = "
            f"{dataset.sampler!r}: set sampler to softmax_triplet."
        )
    margin = experiment.train.optim.triplet_loss_margin
    if experiment.train.triplet_distance == "cosine" and margin >= 2 and has_triplet_margin(experiment):
        errors.append(
            f"train.optim.triplet_loss_margin = {margin:g} contradicts train.triplet_distance = 'cosine', whose "
            "distances are at most 2: set the margin below 2, or model.no_margin: true."
        )
    if not model.parts or len(set(model.parts)) < len(model.parts):
        errors.append(
            f"model.parts = {list(model.parts)} is empty or has a number twice: list each number of stripes once, [1] "
            "for the whole image."
        )
    return errors + _find_optimizer_errors(experiment)


def _find_optimizer_errors(experiment: Experiment) -> list[str]:
    train, optim, errors = experiment.train, experiment.train.optim, []
    if optim.name not in OPTIMIZERS:
        errors.append(f"train.optim.name = {optim.name!r} is not an optimizer: choose one of {', '.join(OPTIMIZERS)}.")
    if optim.nesterov and optim.name == "SGD" and not optim.momentum:
        errors.append(
            "train.optim.nesterov = True contradicts train.optim.momentum = 0: set a momentum, or nesterov: false."
        )
    if optim.freeze_epochs and not has_identity_loss(experiment):
        errors.append(
            f"train.optim.freeze_epochs = {optim.freeze_epochs} leaves no classifier to train with dataset.sampler = "
            f"{experiment.dataset.sampler!r}: set sampler to softmax_triplet, or freeze_epochs: 0."
        )
    if optim.freeze_epochs and train.cuda_graphs:  # a graph records the backbone as it is in the first step
        errors.append(
            f"train.cuda_graphs = True cannot be combined with train.optim.freeze_epochs = {optim.freeze_epochs}: "
            "set cuda_graphs: false or freeze_epochs: 0."
        )
    return errors


def _find_margin_errors(experiment: Experiment) -> list[str]:
    """Return one message for each margin at which a circle loss wants negatives nearer than positives."""
    model, optim = experiment.model, experiment.train.optim
    margins = {
        "cosine_margin": has_identity_loss(experiment) and model.id_loss_type == "circle",
        "pair_margin": has_pair_loss(experiment) and model.metric_loss_type == "circle",
    }
    return [
        f"train.optim.{name} = {margin} contradicts itself: the circle loss wants cosines above {1 - margin:g} within "
        f"an identity and below {margin:g} between identities; set it below 0.5."
        for name, is_circle in margins.items()
        if is_circle and (margin := getattr(optim, name)) is not None and margin >= 0.5
    ]


def _metric_loss(experiment: Experiment) -> str:
    return experiment.model.metric_loss_type.removesuffix("_center").replace("_", "-")


def _next_valid_batch_size(experiment: Experiment, workers: int) -> int:
    """Return the smallest batch size >= `dataset.batch_size` with whole identities and equal parts for all workers."""
    unit = math.lcm(experiment.dataset.num_instances, workers)
    return unit * math.ceil(experiment.dataset.batch_size / unit)


def require_divisible_batch(experiment: Experiment, workers: int) -> None:
    """Check that the batch can be divided among the workers, and among the chunks of each worker.

    Args:
        experiment: The spec.
        workers: Number of workers.

    Raises:
        InputError: The batch cannot be divided; the message has the next batch size that can.
    """
    batch, chunks = experiment.dataset.batch_size, experiment.train.accumulate
    if batch % (workers * chunks):
        accumulation = f" with train.accumulate = {chunks} each" if chunks > 1 else ""
        raise InputError(
            f"dataset.batch_size = {batch} cannot be divided among {workers} worker{'s' if workers > 1 else ''}"
            f"{accumulation}: the next size that can, with dataset.num_instances = {experiment.dataset.num_instances}, "
            f"is {_next_valid_batch_size(experiment, workers * chunks)}."
        )


def find_warnings(experiment: Experiment) -> list[str]:
    """Return warnings about a training."""
    warnings = []
    optim, epochs = experiment.train.optim, experiment.train.num_epochs
    key = "warmup_epochs" if optim.warmup_method in COSINE_SCHEDULES else "warmup_iters"
    if optim.warmup_steps is None and getattr(optim, key) >= epochs:
        warnings.append(
            f"warning: train.optim.{key} = {getattr(optim, key)} is not below train.num_epochs = {epochs}: "
            "the learning rate never reaches base_lr."
        )
    model = experiment.model
    if model.pretrained_model_path and has_backbone_always_loaded(model):
        warnings.append(
            f"warning: model.pretrain_choice is empty, but the backbone {model.backbone} is loaded from "
            "model.pretrained_model_path, as in the reference: to load nothing, remove the path."
        )
    return warnings


def describe_without_effect(experiment: Experiment, user_keys: Collection[str]) -> list[str]:
    """Return one line on the keys that have no effect, with the reasons; none if all have one.

    Args:
        experiment: The experiment.
        user_keys: Keys to which the user has given a value, which include the reference's.
    """
    reasons: dict[str, list[str]] = {}
    for field in unused_fields(experiment):
        if field.key in user_keys:
            reasons.setdefault(field.reason, []).append(field.key.rsplit(".", 1)[-1])
    for key in sorted(filter(is_tao_key, user_keys)):
        reasons.setdefault(inactive_reason(key), []).append(key)
    if not reasons:
        return []
    return ["no effect: " + "; ".join(f"{', '.join(keys)} ({reason})" for reason, keys in reasons.items())]
