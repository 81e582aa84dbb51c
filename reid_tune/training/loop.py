"""The training loop."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reid_tune.checkpoints.names import LATEST
from reid_tune.data.upload import upload
from reid_tune.errors import FailedRun, InputError
from reid_tune.evaluation.features import write_features
from reid_tune.evaluation.score import score
from reid_tune.modeling.network import ReIDNet
from reid_tune.optim.schedule import set_learning_rate
from reid_tune.spec.experiment import Experiment
from reid_tune.training.determinism import kernels
from reid_tune.training.embed import features_of, network_embed
from reid_tune.training.reporter import Reporter
from reid_tune.training.run import Run, begin, save
from reid_tune.training.workers import broadcast, rank, world_size

__all__ = ["Trained", "train"]

CPU = torch.device("cpu")
_CHECK_EVERY = 10
_CALMER = "lower train.optim.base_lr, lengthen the warm-up or set train.clip_grad_norm"


@dataclass(frozen=True)
class Trained:
    """The end of a run: its last checkpoint and the metrics of all epochs."""

    checkpoint: Path
    history: list[dict[str, Any]]


def train(
    experiment: Experiment,
    reporter: Reporter,
    directory: Path,
    *,
    resume: Path | None = None,
    validate_at: Collection[int] = (),
    keep_best: bool = False,
    features: Path | None = None,
    device: torch.device = CPU,
) -> Trained:
    """Train a network as the spec says, on all workers of the process group if there is one.

    After every epoch `reid_model_latest.pth` is written, then the epoch is reported; every `checkpoint_interval`
    epochs and at the end it is kept as `model_epoch_NNN.pth`, NNN being 0-based. A run continues from `resume`, else
    from the latest checkpoint in `directory`, and first reports the epochs that it holds.

    Args:
        directory: Folder of the checkpoints, made if needed.
        validate_at: 1-based epochs with a validation, beside those of `validation_interval` and the last one.
        keep_best: Keep the epoch with the best mAP as `reid_model_best.pth`.
        features: File for the embeddings of the last epoch's validation; it is there before that epoch is reported.

    Raises:
        InputError: data, spec or checkpoint are unusable.
        FailedRun: the loss or the features of the validation are not finite.
    """
    with kernels(experiment.train):
        run = begin(experiment, directory, device, resume)
        num_epochs = experiment.train.num_epochs
        reporter.start(run.data.sampler.steps_per_epoch, len(run.history) + 1, num_epochs)
        reporter.say(run.origin)
        for metrics in run.history:
            reporter.report(metrics)
        for epoch in range(len(run.history), num_epochs):
            metrics = {"epoch": epoch + 1, **_train_epoch(run, epoch, reporter)}
            if run.validates and _validates(experiment, epoch + 1, validate_at):
                metrics |= broadcast(_validate(run, epoch, features if epoch + 1 == num_epochs else None))
            _require_finite(run.network, epoch)
            run.history.append(metrics)
            save(run, keep_best=keep_best)
            reporter.report(metrics)
    return Trained(run.directory / LATEST, run.history)


def _train_epoch(run: Run, epoch: int, reporter: Reporter) -> dict[str, float]:
    train, data, batch = run.experiment.train, run.data, run.experiment.dataset.batch_size
    rate = set_learning_rate(run.optimizer, train.optim, epoch, train.num_epochs, run.history)
    # Stochastic layers draw alike on all workers, and a resumed run draws what an undisturbed one does.
    torch.manual_seed(train.seed * 1_000_003 + epoch)
    share = batch // world_size()
    own = slice(rank() * share, (rank() + 1) * share)
    run.network.train()
    sums: dict[str, torch.Tensor] = {}
    bad = torch.zeros((), dtype=torch.int64, device=run.device)  # The first step without a finite loss.
    started = time.perf_counter()
    for number, chosen in enumerate(data.sampler.epoch(epoch), start=1):
        decisions = data.augmentation.draw(train.seed, epoch, number - 1, batch).slice(own.start, own.stop)
        images = upload(data.images.take(chosen[own]), run.device)
        labels = upload(data.labels[chosen], run.device)
        parts = run.step(data.augmentation.apply(images, decisions), labels)
        sums = {name: sums.get(name, torch.zeros_like(part)) + part for name, part in parts.items()}
        bad = torch.where(parts["loss"].isfinite() | (bad > 0), bad, number)
        if number % _CHECK_EVERY == 0 or number == data.sampler.steps_per_epoch:
            _require_finite_loss(int(bad), epoch)
            reporter.step(number, float(parts["loss"]))
    steps = data.sampler.steps_per_epoch
    speed = steps * batch / (time.perf_counter() - started)
    return {name: float(value) / steps for name, value in sums.items()} | {"lr": rate, "images_per_second": speed}


def _require_finite(network: ReIDNet, epoch: int) -> None:
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        raise FailedRun(f"the weights are not finite behind epoch {epoch + 1}: {_CALMER}.")


def _require_finite_loss(step: int, epoch: int) -> None:
    if step:
        raise FailedRun(f"the loss is not finite in epoch {epoch + 1}, step {step}: {_CALMER}.")


def _validates(experiment: Experiment, epoch: int, validate_at: Collection[int]) -> bool:
    train = experiment.train
    return epoch % train.validation_interval == 0 or epoch == train.num_epochs or epoch in validate_at


def _validate(run: Run, epoch: int, file: Path | None) -> dict[str, float | int] | None:
    """Metrics of the network as it is about to be saved, on rank 0; in float32, as in `evaluate`."""
    if run.validation is None:
        return None
    embed = network_embed(run.network, run.experiment)
    try:
        features = features_of(run.validation, embed)
    except InputError as error:
        raise FailedRun(f"the network fails the validation of epoch {epoch + 1}: {error} Or {_CALMER}.") from None
    if file is not None:
        write_features(file, features)
    metrics = score(features).as_dict()
    return metrics | {"val_loss": 1 - metrics["mAP"]}
