"""Checkpoints that are written in the background while training continues."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint
from reid_tune.checkpoints.filenames import BEST, LATEST, epoch_filename
from reid_tune.config.encryption_key import find_passphrase
from reid_tune.files import link_atomic
from reid_tune.training.devices import background_thread
from reid_tune.training.distributed import rank
from reid_tune.training.state import TrainingState

__all__ = ["CheckpointWriter"]


class CheckpointWriter:
    """Writes the latest checkpoint of a run in a thread, one at a time; rank 0 does. A context manager.

    The state is copied to the host before `save` returns to the loop, on a GPU in its own order of work, so that later
    steps do not change it. A file appears whole or not at all: after a crash the one before is there.

    Args:
        keep_best: Keep the epoch with the best mAP under a name of its own.
    """

    def __init__(self, run: TrainingState, *, keep_best: bool) -> None:
        self._run, self._keep_best = run, keep_best
        self._pool = background_thread("checkpoint", run.device)
        self._writing: Future[None] | None = None
        self._buffers = _HostBuffers()

    def save(self) -> None:
        """Start to write the state after the last epoch of the run's history.

        Raises:
            InputError, InfrastructureError: see `wait`.
        """
        self.wait()
        if rank() != 0:
            return
        run, center = self._run, self._run.step.center
        checkpoint = Checkpoint(
            spec=run.experiment.model_dump(mode="json", exclude={"encryption_key"}),
            epoch=len(run.history),
            identities=run.data.identities,
            history=[dict(metrics) for metrics in run.history],
            model=self._buffers.copy(run.network.state_dict(), "model"),
            optimizer=self._buffers.copy(run.optimizer.state_dict(), "optimizer"),
            centers=self._buffers.copy(center.centers.detach(), "centers") if center is not None else None,
            scaler=self._buffers.copy(run.step.scaler.state_dict(), "scaler"),
        )
        copied = torch.cuda.Event() if run.device.type == "cuda" else None
        if copied is not None:
            copied.record(torch.cuda.current_stream(run.device))
        self._writing = self._pool.submit(self._write, checkpoint, copied)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written."""
        return self._writing is None or self._writing.done()

    def wait(self) -> None:
        """Wait until the latest checkpoint is on the disk.

        Raises:
            InputError: the folder cannot be written.
            InfrastructureError: the disk is full or broken.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, checkpoint: Checkpoint, copied: torch.cuda.Event | None) -> None:
        """Write the latest checkpoint, and give it further names where it is to be kept or the best so far."""
        if copied is not None:
            copied.synchronize()
        experiment, folder, epoch = self._run.experiment, self._run.directory, checkpoint.epoch
        latest: Path = folder / LATEST
        save_checkpoint(latest, checkpoint, find_passphrase(experiment))
        if epoch % experiment.train.checkpoint_interval == 0 or epoch == experiment.train.num_epochs:
            link_atomic(latest, folder / epoch_filename(epoch - 1))
        scores = [metrics["mAP"] for metrics in checkpoint.history if "mAP" in metrics]
        if self._keep_best and "mAP" in checkpoint.history[-1] and scores[-1] > max(scores[:-1], default=-1.0):
            link_atomic(latest, folder / BEST)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the file that is being written, also where the run ends by an error or by Ctrl-C."""
        self._pool.shutdown()


class _HostBuffers:
    """Copies of nested tensors on the host, in memory that is allocated once and used again."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, value: Any, path: str) -> Any:
        """The value with every tensor copied; on a GPU the copy is done once the stream has come to it."""
        if isinstance(value, dict):
            return {name: self.copy(part, f"{path}.{name}") for name, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.copy(part, f"{path}.{number}") for number, part in enumerate(value))
        if not isinstance(value, Tensor):
            return value
        buffer = self._buffers.get(path)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = self._buffers[path] = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        return buffer.copy_(value, non_blocking=True)
