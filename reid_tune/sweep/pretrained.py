"""Pretrained weights that a spec names by a reference: one file for all runs, whatever the reference means later."""

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
from reid_tune.tasks.common.open_model import CHECKPOINT, resolve_model

__all__ = ["pinned_pretrained_weights"]

_KEY = "model.pretrained_model_path"
_FOLDER = "pretrained"


@contextmanager
def pinned_pretrained_weights(sweep: SweepConfig, header: SweepHeader | TrainingHeader | None) -> Iterator[SweepConfig]:
    """The sweep with a file in place of a reference: that of its log, else a copy of what the reference names now.

    The copy lies among the sweep's files, where every node finds it, and goes away with the block unless the sweep has
    begun in it.

    Args:
        header: First event of the sweep's log, None before it begins.

    Raises:
        InputError: the reference names nothing, or the storage cannot be written.
        InfrastructureError: the store or the storage does not answer, or the disk is full.
    """
    reference = sweep.experiment.model.pretrained_model_path or ""
    if not is_reference(reference):
        yield sweep
        return
    if isinstance(header, SweepHeader) and header.weights == reference:
        yield _with(sweep, header.spec[_KEY], reference)
        return
    content = resolve_model(reference, CHECKPOINT).read_bytes()
    name = f"{_FOLDER}/{secrets.token_hex(8)}.pth"  # No other process may remove it.
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
    with suppress(OSError):  # Other things are there.
        path.parent.rmdir()
        sweep.folder.rmdir()


def _with(sweep: SweepConfig, file: str, reference: str) -> SweepConfig:
    return replace(
        sweep, experiment=with_parameters(sweep.experiment, {_KEY: file}, "the sweep"), weights_reference=reference
    )
