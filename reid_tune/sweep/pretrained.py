"""Pin the pretrained weights that a sweep names by references: one file of each for all runs."""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from reid_tune.checkpoints.filenames import is_reference
from reid_tune.config.load import with_parameters
from reid_tune.errors import ReidTuneError
from reid_tune.files import write_atomic
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.events import Event
from reid_tune.journal.state import replay
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.parse import parse_spaces
from reid_tune.search_space.space import plain_values
from reid_tune.search_space.weights import WEIGHTS_KEY, replace_texts
from reid_tune.storage.object_store import ObjectStore
from reid_tune.tasks.common.model_references import CHECKPOINT, resolve_model

__all__ = ["named_by_reference", "pinned_pretrained_weights", "pinned_values", "recorded_weights"]

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
        InputError: a reference names no model, or the storage cannot be written; errors of the block name references
            instead of their files.
        InfrastructureError: the MLflow store or the storage is unreachable, or the disk is full.
    """
    references = list(filter(is_reference, sweep.weights))
    files = {reference: recorded[reference] for reference in references if reference in recorded}
    copies: dict[str, str] = {}
    try:
        for reference in references:
            if reference not in files:
                copies[reference] = _copy(reference, sweep.location, partial(_write, sweep))
        with named_by_reference(files | copies):
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


@contextmanager
def pinned_values(values: Mapping[str, Any], files: ObjectStore, location: str) -> Iterator[dict[str, Any]]:
    """Yield a configuration with a file instead of a reference to pretrained weights, which is removed after an error.

    Args:
        values: Values by key.
        files: Store of the sweep's files.
        location: Its address.

    Raises:
        InputError: the reference names no model, or the storage cannot be written; errors of the block name the
            reference instead of its file.
        InfrastructureError: the MLflow store or the storage is unreachable, or the disk is full.
    """
    reference = values.get(WEIGHTS_KEY)
    if not isinstance(reference, str) or not is_reference(reference):
        yield dict(values)
        return
    file = _copy(reference, location, files.write)
    try:
        with named_by_reference({reference: file}):
            yield {**values, WEIGHTS_KEY: file}
    except BaseException:
        files.remove(file.removeprefix(f"{location}/"))
        raise


@contextmanager
def named_by_reference(files: Mapping[str, str]) -> Iterator[None]:
    """Name references, as the user wrote them, instead of their files in errors of the block.

    Args:
        files: File of pretrained weights by reference.
    """
    try:
        yield
    except ReidTuneError as error:
        text = str(error)
        for reference, file in files.items():
            text = text.replace(file, reference)
        error.args = (text,)
        raise


def _copy(reference: str, location: str, write: Callable[[str, bytes], None]) -> str:
    """Copy the weights that a reference names to a sweep's folder, and return the address of the copy."""
    content = resolve_model(reference, CHECKPOINT).read_bytes()
    name = f"{_FOLDER}/{secrets.token_hex(8)}.pth"  # unique, as another process removes its own copy
    write(name, content)
    return f"{location}/{name}"


def _write(sweep: SweepConfig, name: str, content: bytes) -> None:
    if sweep.remote:
        sweep.remote.write(name, content)
    else:  # The folder does not exist before the sweep begins.
        write_atomic(sweep.folder / name, content)


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
