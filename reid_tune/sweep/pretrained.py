"""Pin the pretrained weights that a spec names by a reference: one file for all runs of a sweep."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from reid_tune.checkpoints.filenames import is_reference
from reid_tune.config.load import with_parameters
from reid_tune.files import write_atomic
from reid_tune.journal.event_log import EVENTS, read_header
from reid_tune.journal.events import SweepHeader, TrainingHeader
from reid_tune.search_space.load import SweepConfig
from reid_tune.tasks.common.model_references import CHECKPOINT, resolve_model

__all__ = ["pinned_pretrained_weights"]

_KEY = "model.pretrained_model_path"
_FOLDER = "pretrained"


@contextmanager
def pinned_pretrained_weights(sweep: SweepConfig, header: SweepHeader | TrainingHeader | None) -> Iterator[SweepConfig]:
    """Yield the sweep with a file instead of a reference such as `models:/NAME@ALIAS`.

    A sweep that has begun keeps the file of its log, even if the reference names another model now. Otherwise the file
    is a copy in the sweep's folder, where every node finds it. It is removed after the block unless the sweep has begun
    in the block.

    Args:
        sweep: Sweep as loaded.
        header: First event of the sweep's log, None before it begins.

    Raises:
        InputError: the reference names no model, or the storage cannot be written.
        InfrastructureError: the MLflow store or the storage is unreachable, or the disk is full.
    """
    reference = sweep.experiment.model.pretrained_model_path or ""
    if not is_reference(reference):
        yield sweep
        return
    if isinstance(header, SweepHeader) and header.weights == reference:
        yield _with(sweep, header.spec[_KEY], reference)
        return
    content = resolve_model(reference, CHECKPOINT).read_bytes()
    name = f"{_FOLDER}/{secrets.token_hex(8)}.pth"  # unique, as another process removes its own copy
    if sweep.remote:
        sweep.remote.write(name, content)
    else:
        write_atomic(sweep.folder / name, content)
    file = f"{sweep.location}/{name}"
    try:
        yield _with(sweep, file, reference)
    finally:
        header = read_header(sweep.folder / EVENTS)
        if header is None or header.spec[_KEY] != file:
            _remove(sweep, name)


def _remove(sweep: SweepConfig, name: str) -> None:
    if sweep.remote:
        sweep.remote.remove(name)
        return
    path = sweep.folder / name
    path.unlink()
    with suppress(OSError):  # The folder has other files.
        path.parent.rmdir()
        sweep.folder.rmdir()


def _with(sweep: SweepConfig, file: str, reference: str) -> SweepConfig:
    return replace(
        sweep, experiment=with_parameters(sweep.experiment, {_KEY: file}, "the sweep"), weights_reference=reference
    )
