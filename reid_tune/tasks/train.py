"""The task `train`: train one network from a spec."""

import fcntl
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from reid_tune.checkpoints.filenames import LATEST, is_reference
from reid_tune.config.checks import require_divisible_batch
from reid_tune.config.experiment import Experiment
from reid_tune.config.train import Train
from reid_tune.data.account import accounts_as_dict, describe_accounts
from reid_tune.errors import InputError, error_context
from reid_tune.files import write_atomic
from reid_tune.tasks.common.model_references import CHECKPOINT, resolve_model
from reid_tune.tasks.common.status_log import StatusLog, kpi, logged
from reid_tune.tasks.common.tracked_training import EpochLog, track_training
from reid_tune.tasks.split import SPLIT, write_split_lists
from reid_tune.training.compiler import require_compiler
from reid_tune.training.data_split import (
    DataSplit,
    count_shared_identities,
    has_validation_split,
    load_split,
    validates_on_test_set,
)
from reid_tune.training.devices import task_devices
from reid_tune.training.distributed import rank
from reid_tune.training.launch import launch_workers
from reid_tune.training.loop import train
from reid_tune.training.reporting import TerminalReporter
from reid_tune.training.seen_images import find_seen_validation

__all__ = ["describe_run", "describe_stop", "run_train"]


def run_train(experiment: Experiment, user_keys: Collection[str] = (), *, track: bool = False) -> Path:
    """Train into the task's folder, from its latest checkpoint if there is one; progress goes to stderr.

    Args:
        experiment: The spec.
        user_keys: Keys that the user has set, in the spec file or on the command line.
        track: Whether the training is recorded in MLflow, see `track_training`.

    Returns:
        The last checkpoint.

    Raises:
        InputError: the spec, its data or a checkpoint is unusable.
        RunFailedError: the loss is not finite, or a worker died.
    """
    experiment = _resolve_references(experiment)
    directory = experiment.task_dir("train")
    workers = task_devices(experiment, "train")
    require_divisible_batch(experiment, len(workers))
    require_compiler(experiment, workers[0].type)
    split = load_split(experiment)
    with error_context("the validation"):
        split.require_rankable()
    for line in (*_describe_data(experiment, split, user_keys), describe_run(experiment, "train", workers)):
        print(line, file=sys.stderr)
    with logged(directory, "train"), _tracked(experiment, directory) if track else nullcontext():
        if len(workers) == 1:
            _worker(experiment, split, directory, track, workers[0])
        else:
            launch_workers(_worker, (experiment, split, directory, track), workers)
    return directory / LATEST


def describe_stop(experiment: Experiment) -> str:
    """Return a sentence on how a training that was stopped is continued."""
    latest = experiment.task_dir("train") / LATEST
    if experiment.train.resume_training_checkpoint_path:
        hint = f" unless train.resume_training_checkpoint_path={latest} is given" if latest.exists() else ""
        return f"stopped; the same command starts again from the checkpoint that it was given{hint}."
    if not latest.exists():
        return "stopped before an epoch was finished; the same command starts again."
    return "stopped; the same command continues from the last finished epoch."


def _tracked(experiment: Experiment, directory: Path) -> AbstractContextManager[None]:
    # From a checkpoint of the user's choice, epochs are trained again that the log may already have.
    checkpoint = experiment.train.resume_training_checkpoint_path
    return track_training(experiment, directory, resumed=not checkpoint and (directory / LATEST).exists())


def _resolve_references(experiment: Experiment) -> Experiment:
    """Return the spec with files in place of references to models."""
    model, train = experiment.model, experiment.train
    if is_reference(model.pretrained_model_path or ""):
        path = str(resolve_model(str(model.pretrained_model_path), CHECKPOINT))
        model = model.model_copy(update={"pretrained_model_path": path})
    if is_reference(train.resume_training_checkpoint_path or ""):
        path = str(resolve_model(str(train.resume_training_checkpoint_path), CHECKPOINT))
        train = train.model_copy(update={"resume_training_checkpoint_path": path})
    return experiment.model_copy(update={"model": model, "train": train})


def _worker(experiment: Experiment, split: DataSplit, directory: Path, track: bool, device: torch.device) -> None:
    resume = experiment.train.resume_training_checkpoint_path
    epoch_log = EpochLog(directory, device) if track and rank() == 0 else nullcontext()
    with epoch_log as log, _Reporter(experiment, split, directory, log) as reporter:
        train(
            experiment,
            reporter,
            directory,
            split=split,
            resume=Path(resume) if resume else None,
            keep_best=not validates_on_test_set(experiment),
            device=device,
        )


class _Reporter(TerminalReporter):
    """Reports epochs on the terminal, in `status.json` and in the event log.

    The spec is written next to the checkpoints only at the start, when data and an earlier checkpoint are known to fit.
    """

    def __init__(self, experiment: Experiment, split: DataSplit, directory: Path, epoch_log: EpochLog | None) -> None:
        super().__init__()
        self._experiment, self._split, self._epoch_log = experiment, split, epoch_log
        self._status = StatusLog(directory)
        self._lock_file: int | None = None

    def start(self, steps_per_epoch: int, first_epoch: int, num_epochs: int) -> None:
        if rank() == 0 and first_epoch <= num_epochs:
            self._lock()
            write_atomic(self._status.path.with_name("experiment.yaml"), self._experiment.to_yaml())
            if has_validation_split(self._experiment):
                write_split_lists(self._experiment, self._status.path.with_name(SPLIT), self._split)
            data = accounts_as_dict(self._split.accounts)
            self._status.write("STARTED", "train started", epoch=first_epoch - 1, max_epoch=num_epochs, data=data)
        super().start(steps_per_epoch, first_epoch, num_epochs)

    def _lock(self) -> None:
        """Lock the folder against other trainings until this process ends or the training is over."""
        self._lock_file = os.open(self._status.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another training is running in {self._status.path.parent}: wait for it, or set another results_dir."
            ) from None
        except OSError:
            pass  # A network disk may not support locks.

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)
        if self._lock_file is not None:
            os.close(self._lock_file)

    def report_epoch(self, metrics: Mapping[str, Any]) -> None:
        super().report_epoch(metrics)
        if self._epoch_log:
            self._epoch_log.report(metrics)
        epoch, last = metrics["epoch"], self._experiment.train.num_epochs
        if rank() == 0 and epoch >= self.first_epoch:
            seconds = self.seconds_since_last_report()
            self._status.write(
                "RUNNING",
                f"epoch {epoch} of {last} is done",
                epoch=epoch,
                max_epoch=last,
                time_per_epoch=seconds,
                eta=round(seconds * (last - epoch), 3),
                lr=metrics["lr"],
                kpi=kpi(metrics),
                **({"warnings": [metrics["collapse"]]} if "collapse" in metrics else {}),
            )


def _describe_data(experiment: Experiment, split: DataSplit, user_keys: Collection[str]) -> list[str]:
    """Return lines about the training and validation images, and warnings about them."""
    dataset = experiment.dataset
    identities = len({record.identity for record in split.train})
    cameras = len({record.camera for record in split.train})
    lines = [f"training: {len(split.train)} images, {identities} identities, {cameras} camera(s)"]
    if left_out := describe_accounts(split.accounts):
        lines.append(left_out)
    if dataset.num_classes != identities and "dataset.num_classes" in user_keys:
        lines.append(
            f"warning: dataset.num_classes = {dataset.num_classes} is ignored, as the folder has {identities} "
            "identities."
        )
    if split.query:
        source = f"the folder {dataset.validation}"
        if has_validation_split(experiment):
            source = f"held-out identities, listed in {experiment.task_dir('train') / SPLIT}"
        elif validates_on_test_set(experiment):
            source = "the test folders; what is selected by it is selected on test"
        if not has_validation_split(experiment) and (shared := count_shared_identities(split.train, split.query)):
            lines.append(
                f"warning: {shared} identities are in training and in the queries: the score will be meaningless."
            )
        lines.append(f"validation: {len(split.query)} queries, {len(split.gallery)} gallery images, {source}")
        if seen := find_seen_validation(experiment, split):
            lines.append(
                f"warning: the pretrained weights were trained on images of {len(seen)} identities of the validation: "
                f"the score will be too good. dataset.validation_unseen_by=[{experiment.model.pretrained_model_path}] "
                "holds out others."
            )
    return lines


def describe_run(experiment: Experiment, task: str, devices: Sequence[torch.device]) -> str:
    """Return a line about the devices, threads and arithmetic of a task.

    Args:
        experiment: The spec.
        task: Name of the task, such as `train`.
        devices: Device of each worker.
    """
    parts = [_describe_workers(devices), f"{experiment.dataset.num_workers} decoding thread(s)"]
    if task == "train":
        parts += _describe_arithmetic(experiment.train, on_gpu=devices[0].type == "cuda", workers=len(devices))
    return f"{task}: {', '.join(parts)}"


def _describe_arithmetic(train: Train, *, on_gpu: bool, workers: int) -> list[str]:
    """Return descriptions of the arithmetic, chunks and kernels of a training."""
    parts = [f"{train.precision} (TF32)" if train.precision == "fp32" and train.tf32 and on_gpu else train.precision]
    if train.accumulate > 1:
        parts.append(f"each worker's part of a batch in {train.accumulate} chunks")
    if train.cuda_graphs:
        parts.append("CUDA graphs" if on_gpu and workers == 1 else "no CUDA graphs, which need one worker on a GPU")
    if train.deterministic:
        parts.append("deterministic")
    elif on_gpu:
        parts.append(f"cuDNN benchmark {train.cudnn.benchmark}, deterministic {train.cudnn.deterministic}")
    return parts


def _describe_workers(devices: Sequence[torch.device]) -> str:
    if devices[0].type == "cuda":
        return f"GPU {', '.join(str(device.index) for device in devices)}"
    return "no GPU, the CPU" if len(devices) == 1 else f"no GPU, {len(devices)} processes on the CPU"
