"""State of a training run: created from a spec, or restored from a checkpoint."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid_tune.checkpoints.checkpoint import Checkpoint, is_encrypted_file, load_checkpoint
from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.checks import require_divisible_batch
from reid_tune.config.diff import changed_values, network_differences
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.data.fingerprint import image_fingerprints
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
from reid_tune.training.weight_average import WeightAverage

__all__ = ["TrainingState", "create_or_resume"]


@dataclass
class TrainingState:
    """A training run after the epochs in `history`.

    Attributes:
        experiment: Spec of the run, with the seed that it uses.
        directory: Folder of the checkpoints.
        device: Device of this worker.
        data: Training images, batches and transforms.
        image_source: Decoded training images, on the host or on the device.
        has_validation: Whether the run validates; the same on all workers.
        validation: Images to validate on; decoded on rank 0, None elsewhere.
        network: Network with its weights.
        optimizer: Optimizer with its state.
        step: Training step with the losses.
        history: Metrics of the finished epochs.
        seen_images: Fingerprints of all images that the weights have seen, see `Checkpoint`; None except on rank 0.
        origin: Text for the user on where the weights come from.
        average: Average of the network's weights with `train.ema_decay`, on rank 0; otherwise None.
    """

    experiment: Experiment
    directory: Path
    device: torch.device
    data: TrainingImages
    image_source: ImageSource
    has_validation: bool
    validation: EvaluationImages | None
    network: ReIDNet
    optimizer: torch.optim.Optimizer
    step: TrainingStep
    history: list[dict[str, Any]] = field(default_factory=list)
    seen_images: Tensor | None = None
    origin: str = "weights drawn by train.seed"
    average: WeightAverage | None = None

    @property
    def final_network(self) -> ReIDNet:
        """The network that is validated and saved as the model."""
        return self.network if self.average is None else self.average.network

    def prepare_inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return this worker's augmented images and the labels of the global batch, both on the device."""
        images = self.data.augmentation.apply(self.image_source.load(batch.images), batch.augmentation_params)
        return images, to_device(batch.labels, self.device)


def create_or_resume(
    experiment: Experiment,
    directory: Path,
    device: torch.device,
    resume: Path | None,
    split: DataSplit | None = None,
) -> TrainingState:
    """Return the state of a run after its last saved epoch.

    The state comes from `resume`, otherwise from the latest checkpoint of the folder, otherwise from the spec.

    Args:
        experiment: The spec.
        directory: Folder of the checkpoints, made if needed.
        device: Device of this worker.
        resume: Checkpoint to continue from.
        split: Result of `load_split` for the spec; None loads it.

    Raises:
        InputError: Data, spec, pretrained weights or checkpoint are unusable.
    """
    latest = directory / LATEST
    path = resume or (latest if latest.exists() else None)
    checkpoint = load_checkpoint(path, find_passphrase(experiment)) if path else None
    split = split or load_split(experiment)
    state, earlier_images = _prepare(_with_seed(experiment, checkpoint), directory, device, split), None
    if checkpoint is not None:
        assert path is not None
        _restore(state, checkpoint, path)
        earlier_images = checkpoint.images
    elif loaded := load_pretrained(state.network, experiment, state.data.identities):
        state.origin, earlier_images = str(loaded), loaded.images
    if rank() == 0:
        if experiment.train.ema_decay:
            state.average = WeightAverage(state.network, experiment.train.ema_decay)
            if checkpoint is not None:
                state.average.network.load_state_dict(checkpoint.model)
        parts = [
            torch.from_numpy(image_fingerprints(split.train)),
            *([] if earlier_images is None else [earlier_images]),
        ]
        state.seen_images = torch.cat(parts).unique()
    make_folder(directory)
    return state


def _with_seed(experiment: Experiment, checkpoint: Checkpoint | None) -> Experiment:
    """Return the spec with a seed of -1 replaced: drawn once, and later read from the checkpoint."""
    if experiment.train.seed >= 0:
        return experiment
    seed = checkpoint.spec["train"]["seed"] if checkpoint else broadcast_object(random.SystemRandom().randrange(2**31))
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"seed": seed})})


def _prepare(experiment: Experiment, directory: Path, device: torch.device, split: DataSplit) -> TrainingState:
    require_divisible_batch(experiment, world_size())
    optim = experiment.train.optim
    if optim.plateau_patience is not None and optim.lr_monitor == "val_loss" and not split.query:
        raise InputError(
            "train.optim.lr_monitor = 'val_loss' needs a validation, and this spec has none: set dataset.validation, "
            "or set lr_monitor: train_loss."
        )
    data = load_training_images(experiment, split.train, split.folders)
    validation = None
    if split.query and rank() == 0:
        validation = load_evaluation_images(experiment, split.query, split.gallery, split.folders)
    network = build_seeded_network(experiment.model, len(data.identities), experiment.train.seed).to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, optim, scaled=experiment.train.precision == "fp16")
    step = TrainingStep(network, optimizer, experiment, data.sampler.steps_per_epoch * experiment.train.num_epochs)
    image_source = make_image_source(data.images, experiment, device)
    return TrainingState(
        experiment, directory, device, data, image_source, bool(split.query), validation, network, optimizer, step
    )


def _restore(state: TrainingState, checkpoint: Checkpoint, path: Path) -> None:
    if checkpoint.identities != state.data.identities:
        raise InputError(
            f"{path} was trained on {len(checkpoint.identities)} identities, which are not the "
            f"{len(state.data.identities)} of dataset.train_dataset_dir: use an empty results folder, or the data of "
            "that run."
        )
    if not checkpoint.optimizer:
        raise InputError(f"{path} has no optimizer state to continue from: give the checkpoint of a training run.")
    try:
        trained = Experiment.model_validate(checkpoint.spec)
    except ValueError:
        raise InputError(f"{path} holds a spec that this version cannot read: use an empty results folder.") from None
    if differences := network_differences(state.experiment, trained):
        raise InputError(
            f"{path} was trained with another spec: {'; '.join(differences)}: use an empty results folder."
        )
    group_settings = [
        {name: group[name] for name in group if name != "params"} for group in state.optimizer.param_groups
    ]
    center = state.step.center
    try:
        state.network.load_state_dict(checkpoint.trained_model or checkpoint.model)
        state.optimizer.load_state_dict(checkpoint.optimizer)
        if center is not None and checkpoint.centers is not None:
            center.centers.data.copy_(checkpoint.centers)
        if checkpoint.scaler and state.step.scaler.is_enabled():
            state.step.scaler.load_state_dict(checkpoint.scaler)
    except (RuntimeError, ValueError):
        raise InputError(
            f"{path} holds another network or optimizer than the spec: use an empty results folder."
        ) from None
    for group, settings in zip(state.optimizer.param_groups, group_settings, strict=True):
        group.update(settings)  # The spec decides, also where it has changed since the checkpoint.
    state.history = list(checkpoint.history)
    state.origin = f"continues {path}"
    if changes := changed_values(state.experiment, checkpoint.spec):
        state.origin += f"; changed since it was written: {', '.join(changes)}"
    if find_passphrase(state.experiment) and not is_encrypted_file(path):
        state.origin += "; it is not encrypted, and neither are the earlier ones in its folder"
