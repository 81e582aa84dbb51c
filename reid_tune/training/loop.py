"""The training loop."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid_tune.checkpoints.filenames import LATEST
from reid_tune.config.experiment import Experiment
from reid_tune.data.transfer import HostCopy
from reid_tune.errors import InputError, NonFiniteError
from reid_tune.evaluation.features import write_features
from reid_tune.evaluation.score import score
from reid_tune.optim.schedule import set_learning_rate
from reid_tune.training.checkpoint_writer import CheckpointWriter
from reid_tune.training.data_split import DataSplit
from reid_tune.training.determinism import configure_kernels
from reid_tune.training.distributed import broadcast_object, world_size
from reid_tune.training.embedding import compute_features, make_embed_function
from reid_tune.training.memory import translate_memory_errors
from reid_tune.training.pipeline import Batch, training_batches
from reid_tune.training.reporting import Reporter
from reid_tune.training.state import TrainingState, create_or_resume

__all__ = ["TrainingResult", "train"]

CPU = torch.device("cpu")
_CHECK_EVERY = 10
# The step at which several workers report the epoch before: all at the same one, as they wait for each other there. On
# GPUs the checkpoint is mostly written by then.
_REPORT_STEP = {"cuda": 20, "cpu": 1}
_CALMER = "lower train.optim.base_lr, lengthen the warm-up or set train.clip_grad_norm"


@dataclass(frozen=True)
class TrainingResult:
    """The end of a run: its last checkpoint and the metrics of all epochs."""

    checkpoint: Path
    history: list[dict[str, Any]]


def train(
    experiment: Experiment,
    reporter: Reporter,
    directory: Path,
    *,
    split: DataSplit | None = None,
    resume: Path | None = None,
    validate_at: Collection[int] = (),
    keep_best: bool = False,
    features: Path | None = None,
    device: torch.device = CPU,
) -> TrainingResult:
    """Train a network as the spec says, on all workers of the process group if there is one.

    After every epoch `reid_model_latest.pth` is written in the background; once it is there the epoch is reported,
    during the next epoch. Every `checkpoint_interval` epochs and at the end it is kept as `model_epoch_NNN.pth`, NNN
    being 0-based. A run continues from `resume`, else from the latest checkpoint in `directory`, and first reports the
    epochs that it holds.

    Args:
        directory: Folder of the checkpoints, made if needed.
        split: Result of `load_split` for the spec; None loads it.
        validate_at: 1-based epochs with a validation, in addition to those of `validation_interval` and the last one;
            the first of them is the first at which the run may be stopped.
        keep_best: Keep the epoch with the best mAP as `reid_model_best.pth`.
        features: File for the embeddings of the last epoch's validation; it is there before that epoch is reported.

    Raises:
        InputError: data, spec or checkpoint are unusable.
        NonFiniteError: the loss, the weights or the features of the validation are not finite.
        OutOfMemoryError: the GPU or the machine has too little memory.
        UnsupportedOperationError: `train.deterministic` asks for a kernel that does not exist.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # CUDA graphs, and threads of ours, take the current device.
    with translate_memory_errors(experiment, device):
        run = create_or_resume(experiment, directory, device, resume, split)
        certain_epochs = min(validate_at, default=run.experiment.train.num_epochs)
        with configure_kernels(experiment.train, device, certain_epochs * run.data.sampler.steps_per_epoch):
            _train_epochs(run, reporter, validate_at, keep_best, features)
    return TrainingResult(run.directory / LATEST, run.history)


def _train_epochs(
    run: TrainingState, reporter: Reporter, validate_at: Collection[int], keep_best: bool, features: Path | None
) -> None:
    num_epochs = run.experiment.train.num_epochs
    epochs = range(len(run.history), num_epochs)
    reporter.start(run.data.sampler.steps_per_epoch, epochs.start + 1, num_epochs)
    reporter.info(run.origin)
    for metrics in run.history:
        reporter.report_epoch(metrics)
    with (
        CheckpointWriter(run, keep_best=keep_best) as writer,
        training_batches(run.experiment, run.data, run.source, run.device, epochs) as batches,
    ):
        reports = _Reports(reporter, writer)
        for epoch in epochs:
            try:
                trained = _train_epoch(run, epoch, batches, reports)
            except NonFiniteError:  # On all workers: the epoch before is still reported.
                reports.deliver()
                raise
            metrics = {"epoch": epoch + 1, **trained}
            if run.validates and _validates(run.experiment, epoch + 1, validate_at):
                metrics |= broadcast_object(_validate(run, epoch, features if epoch + 1 == num_epochs else None))
            run.history.append(metrics)
            writer.save()
            reports.add(metrics)
        reports.deliver()


class _Reports:
    """Reports each epoch once its checkpoint is on the disk, so that whoever hears of it can resume from there."""

    def __init__(self, reporter: Reporter, writer: CheckpointWriter) -> None:
        self.reporter = reporter
        self._writer = writer
        self._waiting: dict[str, Any] | None = None

    def add(self, metrics: dict[str, Any]) -> None:
        """Keep the metrics of an epoch whose checkpoint is being written."""
        self._waiting = metrics

    def after_step(self, number: int, steps: int, device: torch.device) -> None:
        """Report the epoch before, if it is not yet reported and either written or due at this step of `steps`."""
        alone = world_size() == 1
        due = number >= (steps if alone else min(steps, _REPORT_STEP[device.type]))
        if self._waiting is not None and (due or (alone and self._writer.is_idle)):
            self.deliver()

    def deliver(self) -> None:
        """Wait for the checkpoint of the epoch that is not yet reported, if there is one, and report it."""
        metrics, self._waiting = self._waiting, None
        if metrics is not None:
            self._writer.wait()
            self.reporter.report_epoch(metrics)


def _train_epoch(run: TrainingState, epoch: int, batches: Iterator[Batch], reports: _Reports) -> dict[str, float]:
    train, steps, device = run.experiment.train, run.data.sampler.steps_per_epoch, run.device
    rate = set_learning_rate(run.optimizer, train.optim, epoch, train.num_epochs, run.history)
    # Stochastic layers draw alike on all workers, and a resumed run draws what an undisturbed one does.
    torch.manual_seed(train.seed * 1_000_003 + epoch)
    run.network.train()
    sums: dict[str, Tensor] = {}
    bad_step = torch.zeros((), device=device)  # The first step without a finite loss, 0 for none.
    pending: tuple[int, HostCopy] | None = None
    started = time.perf_counter()
    for number in range(1, steps + 1):
        parts = run.step(*run.inputs(next(batches)))
        sums = {name: sums[name] + part for name, part in parts.items()} if sums else parts
        bad_step = torch.where(parts["loss"].isfinite() | (bad_step > 0), bad_step, number)
        if pending is not None:
            _check_loss(pending, epoch, reports.reporter)
            pending = None
        if number % _CHECK_EVERY == 0 or number == steps:
            pending = number, HostCopy(torch.stack([bad_step, parts["loss"]]))
        reports.after_step(number, steps, device)
    if pending is not None:
        _check_loss(pending, epoch, reports.reporter)
    means = _means_of_epoch(run, sums, epoch)
    speed = steps * run.experiment.dataset.batch_size / (time.perf_counter() - started)
    return means | {"lr": rate, "images_per_second": speed}


def _check_loss(copy: tuple[int, HostCopy], epoch: int, reporter: Reporter) -> None:
    """Tell the loss of a step, one step later: the values are there by then, and the GPU has work."""
    number, values = copy
    bad_step, loss = values.read()
    if bad_step:
        raise NonFiniteError(f"the loss is not finite in epoch {epoch + 1}, step {int(bad_step)}: {_CALMER}.")
    reporter.report_step(number, loss)


def _means_of_epoch(run: TrainingState, sums: dict[str, Tensor], epoch: int) -> dict[str, float]:
    """Means of the sums over the epoch's steps, once the weights are known to be finite; reads the device once."""
    norms = torch._foreach_norm([parameter.detach() for parameter in run.network.parameters()], 1)
    finite = torch.stack(list(norms)).isfinite().all()
    *totals, weights_finite = torch.stack([*(total.float() for total in sums.values()), finite.float()]).tolist()
    if not weights_finite:
        raise NonFiniteError(f"the weights are not finite after epoch {epoch + 1}: {_CALMER}.")
    steps = run.data.sampler.steps_per_epoch
    return {name: total / steps for name, total in zip(sums, totals, strict=True)}


def _validates(experiment: Experiment, epoch: int, validate_at: Collection[int]) -> bool:
    train = experiment.train
    return epoch % train.validation_interval == 0 or epoch == train.num_epochs or epoch in validate_at


def _validate(run: TrainingState, epoch: int, file: Path | None) -> dict[str, float | int] | None:
    """Metrics of the network as it is about to be saved, on rank 0; in float32, as in `evaluate`."""
    if run.validation is None:
        return None
    embed = make_embed_function(run.network, run.experiment)
    try:
        features = compute_features(run.validation, embed)
    except InputError as error:
        raise NonFiniteError(f"the network fails the validation of epoch {epoch + 1}: {error} Or {_CALMER}.") from None
    if file is not None:
        write_features(file, features)
    metrics = score(features, device=run.device).as_dict()
    return metrics | {"val_loss": 1 - metrics["mAP"]}
