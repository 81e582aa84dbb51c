"""Pin the pretrained weights that a sweep names by references: one file of each for all runs."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from reid_tune.checkpoints.filenames import is_reference
from reid_tune.config.load import with_parameters
from reid_tune.files import write_atomic
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import Event
from reid_tune.journal.state import replay
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.parse import parse_spaces
from reid_tune.search_space.space import plain_values
from reid_tune.search_space.weights import WEIGHTS_KEY, replace_texts
from reid_tune.tasks.common.model_references import CHECKPOINT, resolve_model

__all__ = ["pinned_pretrained_weights", "recorded_weights"]

_FOLDER = "pretrained"


@contextmanager
def pinned_pretrained_weights(sweep: SweepConfig, recorded: Mapping[str, str]) -> Iterator[SweepConfig]:
    """Yield the sweep with files instead of references such as `models:/NAME@ALIAS`: in spec, space and `start_from`.

    A sweep that has begun keeps the files of its log, even if the references name other models now. The files of other
    references are copied to the sweep's folder, where every node finds them. A copy is removed after the block unless
    the log names it then.

    Args:
        sweep: Sweep as loaded.
        recorded: `recorded_weights` of the sweep's log.

    Raises:
        InputError: a reference names no model, or the storage cannot be written.
        InfrastructureError: the MLflow store or the storage is unreachable, or the disk is full.
    """
    references = list(filter(is_reference, sweep.weights))
    files = {reference: recorded[reference] for reference in references if reference in recorded}
    copies: dict[str, str] = {}
    try:
        for reference in references:
            if reference not in files:
                copies[reference] = _copy(sweep, reference)
        yield _with(sweep, files | copies) if references else sweep
    finally:
        kept = recorded_weights(read_events(sweep.folder / EVENTS)).values() if copies else ()
        for file in copies.values():
            if file not in kept:
                _remove(sweep, file.removeprefix(f"{sweep.location}/"))


def recorded_weights(events: Iterable[Event]) -> Mapping[str, str]:
    """Return by reference the file of pretrained weights that a sweep's log names, none before the sweep begins."""
    header = replay(events).first_event
    return header.weights if header else {}


def _copy(sweep: SweepConfig, reference: str) -> str:
    """Copy the weights that a reference names to the sweep's folder, and return the address of the copy."""
    content = resolve_model(reference, CHECKPOINT).read_bytes()
    name = f"{_FOLDER}/{secrets.token_hex(8)}.pth"  # unique, as another process removes its own copy
    if sweep.remote:
        sweep.remote.write(name, content)
    else:
        write_atomic(sweep.folder / name, content)
    return f"{sweep.location}/{name}"


def _remove(sweep: SweepConfig, name: str) -> None:
    if sweep.remote:
        sweep.remote.remove(name)
        return
    path = sweep.folder / name
    path.unlink()
    with suppress(OSError):  # The folder has other files.
        path.parent.rmdir()
        sweep.folder.rmdir()


def _with(sweep: SweepConfig, files: Mapping[str, str]) -> SweepConfig:
    """Return the sweep with files in place of references."""
    weights = sweep.experiment.model.pretrained_model_path
    experiment = with_parameters(sweep.experiment, {WEIGHTS_KEY: files.get(weights or "", weights)}, "the sweep")
    search, space = sweep.file.search, replace_texts(sweep.file.space, files)
    if not isinstance(search.start_from, str):
        search = search.model_copy(update={"start_from": tuple(replace_texts(search.start_from, files))})
    file = sweep.file.model_copy(update={"space": space, "search": search})
    space, re_ranking = parse_spaces(file.space, file.constraints, plain_values(experiment), str(sweep.source))
    return replace(
        sweep, file=file, space=space, re_ranking=re_ranking, experiment=experiment, weights_references=dict(files)
    )
