"""Writing of checkpoints in the background while training continues."""

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
    """Writes the latest checkpoint of a run in a thread of rank 0, one at a time; a context manager.

    `save` copies the state to the host before it returns to the loop. On a GPU the copy is queued on the current
    stream, so that later steps do not change it. Files appear atomically: after a crash the previous one is intact.

    Args:
        state: State of the run.
        keep_best: Whether to keep the epoch with the best mAP under a separate name.
    """

    def __init__(self, state: TrainingState, *, keep_best: bool) -> None:
        self._state, self._keep_best = state, keep_best
        self._pool = background_thread("checkpoint", state.device)
        self._writing: Future[None] | None = None
        self._buffers = _HostBuffers()

    def save(self) -> None:
        """Start writing the state after the last epoch of the history.

        Raises:
            InputError, InfrastructureError: The previous checkpoint could not be written, see `wait`.
        """
        self.wait()
        if rank() != 0:
            return
        state, center = self._state, self._state.step.center
        checkpoint = Checkpoint(
            spec=state.experiment.model_dump(mode="json", exclude={"encryption_key"}),
            epoch=len(state.history),
            identities=state.data.identities,
            history=[dict(metrics) for metrics in state.history],
            model=self._buffers.copy(state.final_network.state_dict(), "model"),
            optimizer=self._buffers.copy(state.optimizer.state_dict(), "optimizer"),
            centers=self._buffers.copy(center.centers.detach(), "centers") if center is not None else None,
            scaler=self._buffers.copy(state.step.scaler.state_dict(), "scaler"),
            images=state.seen_images,
            trained_model=self._buffers.copy(state.network.state_dict(), "trained_model") if state.average else {},
        )
        copied = torch.cuda.Event() if state.device.type == "cuda" else None
        if copied is not None:
            copied.record(torch.cuda.current_stream(state.device))
        self._writing = self._pool.submit(self._write, checkpoint, copied)

    @property
    def is_idle(self) -> bool:
        """Whether no checkpoint is being written."""
        return self._writing is None or self._writing.done()

    def wait(self) -> None:
        """Wait until the latest checkpoint is on the disk.

        Raises:
            InputError: The folder cannot be written.
            InfrastructureError: The disk is full or broken.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, checkpoint: Checkpoint, copied: torch.cuda.Event | None) -> None:
        """Write the latest checkpoint, and link it under a second name if its epoch is kept or is the best so far."""
        if copied is not None:
            copied.synchronize()
        experiment, folder, epoch = self._state.experiment, self._state.directory, checkpoint.epoch
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
        """Finish the file that is being written, even if the run ends with an error or Ctrl-C."""
        self._pool.shutdown()


class _HostBuffers:
    """Copies of nested tensors on the host, in memory that is allocated once and reused."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, value: Any, path: str) -> Any:
        """Return the value with every tensor copied; copies from a GPU are complete when the stream reaches them.

        Args:
            value: Tensor, or nested dictionaries, lists and tuples of tensors and other values.
            path: Name of the value, which identifies its buffer.
        """
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
