"""The state of a training run: made from a spec, restored from a checkpoint."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint
from reid_tune.checkpoints.encryption import is_encrypted_file
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.checks import next_valid_batch_size
from reid_tune.config.diff import changed_values, network_differences
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.data.transfer import to_device
from reid_tune.errors import InputError
from reid_tune.files import make_folder
from reid_tune.modeling.network import ReIDNet, build_seeded_network
from reid_tune.optim.optimizer import make_optimizer
from reid_tune.training.data_split import DataSplit, load_split
from reid_tune.training.distributed import broadcast_object, rank, world_size
from reid_tune.training.image_sets import EvaluationImages, TrainingImages, load_evaluation_images, load_training_images
from reid_tune.training.pipeline import Batch, ImageSource, make_image_source
from reid_tune.training.pretrained import load_pretrained
from reid_tune.training.step import TrainingStep

__all__ = ["TrainingState", "create_or_resume", "require_divisible_batch"]


@dataclass
class TrainingState:
    """A run behind the epochs in `history`; `validation` is decoded on rank 0, `validates` says it on all."""

    experiment: Experiment
    directory: Path
    device: torch.device
    data: TrainingImages
    source: ImageSource
    validates: bool
    validation: EvaluationImages | None
    network: ReIDNet
    optimizer: torch.optim.Optimizer
    step: TrainingStep
    history: list[dict[str, Any]] = field(default_factory=list)
    origin: str = "weights drawn by train.seed"

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `step` takes, on the device: this worker's augmented images, and the labels of the global batch."""
        images = self.data.augmentation.apply(self.source.load(batch.images), batch.augmentation_params)
        return images, to_device(batch.labels, self.device)


def require_divisible_batch(experiment: Experiment, workers: int) -> None:
    """Raise an InputError where the batch cannot be divided among the workers and the chunks of each."""
    batch, chunks = experiment.dataset.batch_size, experiment.train.accumulate
    if batch % (workers * chunks):
        each = f" with train.accumulate = {chunks} each" if chunks > 1 else ""
        raise InputError(
            f"dataset.batch_size = {batch} cannot be divided among {workers} worker{'s' * (workers > 1)}{each}: the "
            f"next that can, with dataset.num_instances = {experiment.dataset.num_instances}, is "
            f"{next_valid_batch_size(experiment, workers * chunks)}."
        )


def create_or_resume(
    experiment: Experiment,
    directory: Path,
    device: torch.device,
    resume: Path | None,
    split: DataSplit | None = None,
) -> TrainingState:
    """A run behind its last saved epoch: from `resume`, else the folder's latest checkpoint, else from the start.

    Raises:
        InputError: data, spec, pretrained weights or checkpoint are unusable.
    """
    latest = directory / LATEST
    path = resume or (latest if latest.exists() else None)
    checkpoint = load_checkpoint(path, find_passphrase(experiment)) if path else None
    run = _prepare(_with_seed(experiment, checkpoint), directory, device, split)
    if checkpoint is not None:
        assert path is not None
        _restore(run, checkpoint, path)
    elif loaded := load_pretrained(run.network, experiment, run.data.identities):
        run.origin = str(loaded)
    make_folder(directory)
    return run


def _with_seed(experiment: Experiment, checkpoint: Checkpoint | None) -> Experiment:
    """A seed of -1 is drawn once, and taken again from the checkpoint."""
    if experiment.train.seed >= 0:
        return experiment
    seed = checkpoint.spec["train"]["seed"] if checkpoint else broadcast_object(random.SystemRandom().randrange(2**31))
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"seed": seed})})


def _prepare(experiment: Experiment, directory: Path, device: torch.device, split: DataSplit | None) -> TrainingState:
    require_divisible_batch(experiment, world_size())
    split, optim = split or load_split(experiment), experiment.train.optim
    if optim.plateau_patience is not None and optim.lr_monitor == "val_loss" and not split.query:
        raise InputError(
            "train.optim.lr_monitor = 'val_loss' watches the validation, and there is none: set dataset.validation, "
            "or lr_monitor: train_loss."
        )
    data = load_training_images(experiment, split.train, split.folders)
    validation = None
    if split.query and rank() == 0:
        validation = load_evaluation_images(experiment, split.query, split.gallery, split.folders)
    network = build_seeded_network(experiment.model, len(data.identities), experiment.train.seed).to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, optim, scaled=experiment.train.precision == "fp16")
    step = TrainingStep(network, optimizer, experiment, data.sampler.steps_per_epoch * experiment.train.num_epochs)
    source = make_image_source(data.images, experiment, device)
    return TrainingState(
        experiment, directory, device, data, source, bool(split.query), validation, network, optimizer, step
    )


def _restore(run: TrainingState, checkpoint: Checkpoint, path: Path) -> None:
    if checkpoint.identities != run.data.identities:
        raise InputError(
            f"{path} was trained on {len(checkpoint.identities)} identities, which are not the "
            f"{len(run.data.identities)} of dataset.train_dataset_dir: use an empty results folder or that run's data."
        )
    if not checkpoint.optimizer:
        raise InputError(f"{path} has no optimizer state to continue from: give the checkpoint of a training run.")
    try:
        trained = Experiment.model_validate(checkpoint.spec)
    except ValueError:
        raise InputError(f"{path} holds a spec that this version cannot read: use an empty results folder.") from None
    if unlike := network_differences(run.experiment, trained):
        raise InputError(f"{path} was trained with another spec: {'; '.join(unlike)}: use an empty results folder.")
    settings = [{name: group[name] for name in group if name != "params"} for group in run.optimizer.param_groups]
    center = run.step.center
    try:
        run.network.load_state_dict(checkpoint.model)
        run.optimizer.load_state_dict(checkpoint.optimizer)
        if center is not None and checkpoint.centers is not None:
            center.centers.data.copy_(checkpoint.centers)
        if checkpoint.scaler and run.step.scaler.is_enabled():
            run.step.scaler.load_state_dict(checkpoint.scaler)
    except (RuntimeError, ValueError):
        raise InputError(
            f"{path} holds another network or optimizer than the spec: use an empty results folder."
        ) from None
    for group, own in zip(run.optimizer.param_groups, settings, strict=True):
        group.update(own)  # The spec decides, also where it has changed since the checkpoint.
    run.history = list(checkpoint.history)
    run.origin = f"continues {path}"
    if different := changed_values(run.experiment, checkpoint.spec):
        run.origin += f"; changed since it was written: {', '.join(different)}"
    if find_passphrase(run.experiment) and not is_encrypted_file(path):
        run.origin += "; it is not encrypted, and neither are the earlier ones beside it"
