"""The training loop."""

import math
import random
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reid_tune.checkpoints.names import LATEST, kept
from reid_tune.errors import FailedRun, InputError
from reid_tune.evaluation.score import score
from reid_tune.files import link_atomic, make_folder
from reid_tune.modeling.network import ReIDNet, untrained
from reid_tune.optim.optimizer import make_optimizer
from reid_tune.optim.schedule import set_learning_rate
from reid_tune.spec.experiment import Experiment
from reid_tune.training.data import (
    EvaluationImages,
    TrainingImages,
    evaluation_images,
    split_records,
    training_images,
)
from reid_tune.training.embed import features_of, network_embed
from reid_tune.training.reporter import Reporter
from reid_tune.training.step import Step
from reid_tune.training.workers import broadcast, rank, world_size

__all__ = ["Trained", "default_device", "train"]

_CHECK_EVERY = 10
_CALMER = "lower train.optim.base_lr, lengthen the warm-up or set train.clip_grad_norm"


@dataclass(frozen=True)
class Trained:
    """The end of a run: its last checkpoint and the metrics of all epochs."""

    checkpoint: Path
    history: list[dict[str, Any]]


@dataclass
class _Run:
    experiment: Experiment
    directory: Path
    device: torch.device
    data: TrainingImages
    validation: EvaluationImages | None
    network: ReIDNet
    optimizer: torch.optim.Optimizer
    step: Step
    history: list[dict[str, Any]]


def train(
    experiment: Experiment,
    reporter: Reporter,
    directory: Path,
    *,
    resume: Path | None = None,
    validate_at: Collection[int] = (),
    device: torch.device | None = None,
) -> Trained:
    """Train a network as the spec says, on all workers of the process group if there is one.

    After every epoch `reid_model_latest.pth` is written, then the epoch is reported; every `checkpoint_interval`
    epochs and at the end it is kept as `model_epoch_NNN.pth`, NNN being 0-based. A run continues from `resume`, else
    from the latest checkpoint in `directory`, and first reports the epochs that it holds.

    Args:
        directory: Folder of the checkpoints, made if needed.
        validate_at: 1-based epochs with a validation, beside those of `validation_interval` and the last one.

    Raises:
        InputError: data, spec or checkpoint are unusable.
        FailedRun: the loss or the features of the validation are not finite.
    """
    experiment = _with_seed(experiment)
    run = _prepare(experiment, directory, device or default_device(experiment))
    _resume(run, resume)
    num_epochs = experiment.train.num_epochs
    reporter.start(run.data.sampler.steps_per_epoch, len(run.history) + 1, num_epochs)
    for metrics in run.history:
        reporter.report(metrics)
    for epoch in range(len(run.history), num_epochs):
        metrics = {"epoch": epoch + 1, **_train_epoch(run, epoch, reporter)}
        if run.validation is not None and _validates(experiment, epoch + 1, validate_at):
            metrics |= _validate(run, run.validation, epoch)
        _require_finite(run.network, epoch)
        run.history.append(metrics)
        _save(run, epoch)
        reporter.report(metrics)
    return Trained(run.directory / LATEST, run.history)


def default_device(experiment: Experiment) -> torch.device:
    """The first GPU that the spec names, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", experiment.train.gpu_ids[0])
    return torch.device("cpu")


def _with_seed(experiment: Experiment) -> Experiment:
    if experiment.train.seed >= 0:
        return experiment
    seed = broadcast(random.SystemRandom().randrange(2**31))
    return experiment.model_copy(update={"train": experiment.train.model_copy(update={"seed": seed})})


def _prepare(experiment: Experiment, directory: Path, device: torch.device) -> _Run:
    workers, batch = world_size(), experiment.dataset.batch_size
    if batch % workers:
        raise InputError(f"dataset.batch_size = {batch} cannot be divided among {workers} workers.")
    make_folder(directory)
    split = split_records(experiment)
    data = training_images(experiment, split.train)
    validation = None
    if split.query and rank() == 0:
        validation = evaluation_images(experiment, split.query, split.gallery)
    network = untrained(experiment.model, len(data.identities), experiment.train.seed).to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, experiment.train.optim)
    step = Step(network, optimizer, experiment)
    return _Run(experiment, directory, device, data, validation, network, optimizer, step, [])


def _resume(run: _Run, path: Path | None) -> None:
    latest = run.directory / LATEST
    path = path or (latest if latest.exists() else None)
    if path is None:
        return
    checkpoint = load_checkpoint(path)
    if checkpoint.identities != run.data.identities:
        raise InputError(
            f"{path} was trained on {len(checkpoint.identities)} identities, which are not the "
            f"{len(run.data.identities)} of dataset.train_dataset_dir: use an empty results folder or that run's data."
        )
    if not checkpoint.optimizer:
        raise InputError(f"{path} has no optimizer state to continue from: give the checkpoint of a training run.")
    settings = [{name: group[name] for name in group if name != "params"} for group in run.optimizer.param_groups]
    try:
        run.network.load_state_dict(checkpoint.model)
        run.optimizer.load_state_dict(checkpoint.optimizer)
    except (RuntimeError, ValueError):
        raise InputError(
            f"{path} holds another network or optimizer than the spec: use an empty results folder."
        ) from None
    for group, own in zip(run.optimizer.param_groups, settings, strict=True):
        group.update(own)  # The spec decides, also where it has changed since the checkpoint.
    run.history = list(checkpoint.history)


def _train_epoch(run: _Run, epoch: int, reporter: Reporter) -> dict[str, float]:
    train, data, batch = run.experiment.train, run.data, run.experiment.dataset.batch_size
    rate = set_learning_rate(run.optimizer, train.optim, epoch, train.num_epochs)
    # Stochastic layers draw alike on all workers, and a resumed run draws what an undisturbed one does.
    torch.manual_seed(train.seed * 1_000_003 + epoch)
    share = batch // world_size()
    own = slice(rank() * share, (rank() + 1) * share)
    run.network.train()
    sums: dict[str, torch.Tensor] = {}
    started = time.perf_counter()
    for number, chosen in enumerate(data.sampler.epoch(epoch), start=1):
        decisions = data.augmentation.draw(train.seed, epoch, number - 1, batch).slice(own.start, own.stop)
        images = torch.from_numpy(data.images.take(chosen[own], axis=0)).to(run.device)
        labels = torch.from_numpy(data.labels[chosen]).to(run.device)
        parts = run.step(data.augmentation.apply(images, decisions), labels)
        sums = {name: sums.get(name, torch.zeros_like(part)) + part for name, part in parts.items()}
        if number % _CHECK_EVERY == 0 or number == data.sampler.steps_per_epoch:
            reporter.step(number, _finite(parts["loss"], epoch, number))
    steps = data.sampler.steps_per_epoch
    speed = steps * batch / (time.perf_counter() - started)
    return {name: float(value) / steps for name, value in sums.items()} | {"lr": rate, "images_per_second": speed}


def _require_finite(network: ReIDNet, epoch: int) -> None:
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        raise FailedRun(f"the weights are not finite behind epoch {epoch + 1}: {_CALMER}.")


def _finite(loss: torch.Tensor, epoch: int, step: int) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise FailedRun(f"the loss is {value} in epoch {epoch + 1}, at or shortly before step {step}: {_CALMER}.")
    return value


def _validates(experiment: Experiment, epoch: int, validate_at: Collection[int]) -> bool:
    train = experiment.train
    return epoch % train.validation_interval == 0 or epoch == train.num_epochs or epoch in validate_at


def _validate(run: _Run, images: EvaluationImages, epoch: int) -> dict[str, float | int]:
    embed = network_embed(run.network, run.experiment, run.experiment.train.precision)
    try:
        features = features_of(images, embed)
    except InputError as error:
        raise FailedRun(f"the network fails the validation of epoch {epoch + 1}: {error} Or {_CALMER}.") from None
    return score(features).as_dict()


def _save(run: _Run, epoch: int) -> None:
    if rank() != 0:
        return
    train = run.experiment.train
    latest = run.directory / LATEST
    save_checkpoint(
        latest,
        Checkpoint(
            spec=run.experiment.model_dump(mode="json", exclude={"encryption_key"}),
            epoch=epoch + 1,
            identities=run.data.identities,
            history=run.history,
            model=run.network.state_dict(),
            optimizer=run.optimizer.state_dict(),
        ),
    )
    if (epoch + 1) % train.checkpoint_interval == 0 or epoch + 1 == train.num_epochs:
        link_atomic(latest, run.directory / kept(epoch))
