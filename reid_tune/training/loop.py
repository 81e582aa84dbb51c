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
_STEPS_PER_CHECK = 10
# Step at which several workers report the previous epoch. All use the same step, as they wait for each other there. On
# GPUs the checkpoint has usually been written when that step is reached.
_REPORT_STEP = {"cuda": 20, "cpu": 1}
_DIVERGENCE_HINT = "lower train.optim.base_lr, lengthen the warm-up or set train.clip_grad_norm"


@dataclass(frozen=True)
class TrainingResult:
    """Last checkpoint of a run, and the metrics of all its epochs, those before a resume included."""

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
    features_file: Path | None = None,
    device: torch.device = CPU,
) -> TrainingResult:
    """Train the network of a spec, on all workers of the process group if there is one.

    After every epoch `reid_model_latest.pth` is written in the background. The epoch is reported once that file is
    complete, during the next epoch. Every `checkpoint_interval` epochs and at the end the file is kept as
    `model_epoch_NNN.pth`, where NNN is 0-based. A run continues from `resume`, otherwise from the latest checkpoint in
    `directory`, and first reports the epochs in that checkpoint.

    Args:
        directory: Folder of the checkpoints, made if needed.
        split: Result of `load_split` for the spec; None loads it.
        resume: Checkpoint to continue from.
        validate_at: 1-based epochs with a validation, in addition to those of `validation_interval` and the last one.
            The run may be stopped at the first of them at the earliest.
        keep_best: Whether to keep the epoch with the best mAP as `reid_model_best.pth`.
        features_file: File for the embeddings of the last epoch's validation, written before that epoch is reported.
        device: Device of this worker.

    Raises:
        InputError: Data, spec or checkpoint are unusable.
        NonFiniteError: The loss, the weights or the features of the validation are not finite.
        OutOfMemoryError: The GPU or the machine has too little memory.
        UnsupportedOperationError: `train.deterministic` needs a kernel that does not exist.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # CUDA graphs and our threads use the current device.
    with translate_memory_errors(experiment, device):
        state = create_or_resume(experiment, directory, device, resume, split)
        certain_epochs = min(validate_at, default=state.experiment.train.num_epochs)
        with configure_kernels(experiment.train, device, certain_epochs * state.data.sampler.steps_per_epoch):
            _train_epochs(state, reporter, validate_at, keep_best, features_file)
    return TrainingResult(state.directory / LATEST, state.history)


def _train_epochs(
    state: TrainingState, reporter: Reporter, validate_at: Collection[int], keep_best: bool, features_file: Path | None
) -> None:
    num_epochs = state.experiment.train.num_epochs
    epochs = range(len(state.history), num_epochs)
    reporter.start(state.data.sampler.steps_per_epoch, epochs.start + 1, num_epochs)
    reporter.info(state.origin)
    for metrics in state.history:
        reporter.report_epoch(metrics)
    with (
        CheckpointWriter(state, keep_best=keep_best) as writer,
        training_batches(state.experiment, state.data, state.image_source, state.device, epochs) as batches,
    ):
        reports = _EpochReports(reporter, writer)
        for epoch in epochs:
            try:
                training_metrics = _train_epoch(state, epoch, batches, reports)
            except NonFiniteError:  # Raised on all workers; the previous epoch is still reported.
                reports.deliver()
                raise
            metrics = {"epoch": epoch + 1, **training_metrics}
            if state.has_validation and _is_validation_epoch(state.experiment, epoch + 1, validate_at):
                metrics |= broadcast_object(_validate(state, epoch, features_file if epoch + 1 == num_epochs else None))
                if "collapse" in metrics and not any("collapse" in earlier for earlier in state.history):
                    reporter.info(f"warning: validation of epoch {epoch + 1}: {metrics['collapse']}")
            state.history.append(metrics)
            writer.save()
            reports.add(metrics)
        reports.deliver()


class _EpochReports:
    """Reports each epoch after its checkpoint is on the disk, so that every reported epoch can be resumed from."""

    def __init__(self, reporter: Reporter, writer: CheckpointWriter) -> None:
        self.reporter = reporter
        self._writer = writer
        self._pending: dict[str, Any] | None = None

    def add(self, metrics: dict[str, Any]) -> None:
        """Store the metrics of an epoch whose checkpoint is being written."""
        self._pending = metrics

    def after_step(self, number: int, steps: int, device: torch.device) -> None:
        """Report the pending epoch, if there is one, once its checkpoint is written or its report is due.

        Args:
            number: 1-based number of the step of the current epoch.
            steps: Steps per epoch.
            device: Device of this worker.
        """
        is_single_worker = world_size() == 1
        is_due = number >= (steps if is_single_worker else min(steps, _REPORT_STEP[device.type]))
        if self._pending is not None and (is_due or (is_single_worker and self._writer.is_idle)):
            self.deliver()

    def deliver(self) -> None:
        """Wait for the checkpoint of the pending epoch, if there is one, and report that epoch."""
        metrics, self._pending = self._pending, None
        if metrics is not None:
            self._writer.wait()
            self.reporter.report_epoch(metrics)


def _train_epoch(
    state: TrainingState, epoch: int, batches: Iterator[Batch], reports: _EpochReports
) -> dict[str, float]:
    train, steps, device = state.experiment.train, state.data.sampler.steps_per_epoch, state.device
    # Stochastic layers draw the same numbers on all workers, and a resumed run the same as an uninterrupted one.
    torch.manual_seed(train.seed * 1_000_003 + epoch)
    state.step.start_epoch(epoch)
    sums: dict[str, Tensor] = {}
    bad_step = torch.zeros((), device=device)  # First step whose loss is not finite; 0 if there is none.
    pending: tuple[int, HostCopy] | None = None
    started = time.perf_counter()
    for number in range(1, steps + 1):
        learning_rate = set_learning_rate(
            state.optimizer, train.optim, epoch, train.num_epochs, state.history, number - 1, steps
        )
        parts = state.step(*state.prepare_inputs(next(batches)))
        if state.average is not None:
            state.average.update(epoch * steps + number)
        sums = {name: sums[name] + part for name, part in parts.items()} if sums else parts
        bad_step = torch.where(parts["loss"].isfinite() | (bad_step > 0), bad_step, number)
        if pending is not None:
            _check_loss(pending, epoch, reports.reporter)
            pending = None
        if number % _STEPS_PER_CHECK == 0 or number == steps:
            pending = number, HostCopy(torch.stack([bad_step, parts["loss"]]))
        reports.after_step(number, steps, device)
    if pending is not None:
        _check_loss(pending, epoch, reports.reporter)
    means = _epoch_means(state, sums, epoch)
    speed = steps * state.experiment.dataset.batch_size / (time.perf_counter() - started)
    return means | {"lr": learning_rate, "images_per_second": speed}


def _check_loss(pending: tuple[int, HostCopy], epoch: int, reporter: Reporter) -> None:
    """Check and report the loss of the previous step.

    By then the values have reached the host, and the GPU is working on the next step.

    Raises:
        NonFiniteError: The loss of a step was not finite.
    """
    number, values = pending
    bad_step, loss = values.read()
    if bad_step:
        raise NonFiniteError(f"the loss is not finite in epoch {epoch + 1}, step {int(bad_step)}: {_DIVERGENCE_HINT}.")
    reporter.report_step(number, loss)


def _epoch_means(state: TrainingState, sums: dict[str, Tensor], epoch: int) -> dict[str, float]:
    """Return the means over the steps of an epoch; one read from the device serves the check of the weights too.

    Args:
        state: State of the run.
        sums: Sums of the losses and of the accuracy over the steps, by name.
        epoch: 0-based epoch.

    Raises:
        NonFiniteError: A weight is not finite.
    """
    norms = torch._foreach_norm([parameter.detach() for parameter in state.network.parameters()], 1)
    is_finite = torch.stack(list(norms)).isfinite().all()
    *totals, has_finite_weights = torch.stack([*(total.float() for total in sums.values()), is_finite.float()]).tolist()
    if not has_finite_weights:
        raise NonFiniteError(f"the weights are not finite after epoch {epoch + 1}: {_DIVERGENCE_HINT}.")
    steps = state.data.sampler.steps_per_epoch
    return {name: total / steps for name, total in zip(sums, totals, strict=True)}


def _is_validation_epoch(experiment: Experiment, epoch: int, validate_at: Collection[int]) -> bool:
    train = experiment.train
    return epoch % train.validation_interval == 0 or epoch == train.num_epochs or epoch in validate_at


def _validate(state: TrainingState, epoch: int, features_file: Path | None) -> dict[str, Any] | None:
    """Return the metrics of the network about to be saved, on rank 0, None elsewhere; in float32, as in `evaluate`.

    They have the key `collapse` with a sentence if the embeddings have collapsed.
    """
    if state.validation is None:
        return None
    embed = make_embed_function(state.final_network, state.experiment)
    try:
        features = compute_features(state.validation, embed)
        result = score(features, device=state.device)
    except InputError as error:
        raise NonFiniteError(
            f"the network fails the validation of epoch {epoch + 1}: {error} Or {_DIVERGENCE_HINT}."
        ) from None
    if features_file is not None:
        write_features(features_file, features)
    metrics: dict[str, Any] = result.as_dict() | {"val_loss": 1 - result.mAP}
    return metrics | ({"collapse": result.embeddings.collapse} if result.embeddings.collapse else {})
