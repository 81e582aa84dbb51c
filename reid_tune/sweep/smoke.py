"""Smoke test: a whole sweep on a few images, with about two steps an epoch, in a temporary folder."""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from reid_tune.config.experiment import unflatten
from reid_tune.environment import temporary_variables
from reid_tune.errors import ReidTuneError, RunFailedError
from reid_tune.journal.event_log import EVENTS, read_events
from reid_tune.journal.stages import STAGES
from reid_tune.journal.state import RunState, replay
from reid_tune.search.space_check import SAMPLE_COUNT, validate_space
from reid_tune.search_space.load import SweepConfig, load_sweep
from reid_tune.search_space.space import plain_values
from reid_tune.storage.temporary_folder import temporary_folder
from reid_tune.sweep.pretrained import pinned_pretrained_weights
from reid_tune.sweep.sample_images import link_images, sample_test_images, sample_training_images
from reid_tune.tasks.common.evaluation_sets import evaluation_sets
from reid_tune.training.data_split import (
    GALLERY,
    QUERY,
    list_training_folders,
    read_evaluation_folders,
    validation_folders,
)

__all__ = ["make_small_sweep", "run_smoke_test"]

_EPOCHS = "train.num_epochs"
_STEPS = 2  # per epoch, approximately
_SECTIONS: dict[str, Any] = {
    "scheduler": {"name": "none"},
    "budget": {"trials": 2},
    "confirm": {"candidates": 1, "repeats": 1},
    "refit": {"seeds": 1},
    "keep_paused": None,  # nothing is paused
}


def run_smoke_test(path: Path, overrides: Sequence[str] = (), until: str = STAGES[-1]) -> str:
    """Run the stages of a search-space file on a few of its images, and return one line about it.

    The sweep is an ordinary one, with a separate storage, MLflow store and image cache. The log of a run that fails is
    printed to stderr.

    Args:
        path: Path of the search-space file.
        overrides: Overrides of the file and its spec, see `load_sweep`.
        until: Last stage.

    Raises:
        InputError: a sweep of the file would fail.
        RunFailedError: a run of any stage failed.
    """
    started = time.monotonic()
    with_tests = "test" in STAGES[: STAGES.index(until) + 1]
    with (
        temporary_folder("reid-tune-smoke-") as folder,
        pinned_pretrained_weights(load_sweep(path, overrides), {}) as sweep,
    ):
        small = make_small_sweep(sweep, folder, with_tests=with_tests)
        images = sum(1 for path in folder.rglob("*") if path.is_symlink())
        with _separate_stores(folder):
            _run(small, until)
    stages = "all stages" if until == STAGES[-1] else f"the stages up to {until}"
    return f"smoke: {stages} ran in {time.monotonic() - started:.0f} s on {images} images"


def make_small_sweep(sweep: SweepConfig, folder: Path, *, with_tests: bool) -> SweepConfig:
    """Make a sweep of two trials of one epoch on few images, with the space, network and resources of another one.

    Args:
        sweep: Sweep to copy.
        folder: Folder for its file, its spec and links to the images.
        with_tests: Whether it has test folders.

    Raises:
        InputError: the space or the data are invalid.
    """
    spec = plain_values(sweep.experiment) | {_EPOCHS: 1} | _training_folders(sweep, folder) | _validation(sweep, folder)
    if with_tests:
        spec |= _test_folders(sweep, folder)
    space, constraints = _one_epoch_space(sweep)
    tree = sweep.file.model_dump(mode="json") | _SECTIONS
    tree |= {"space": space, "constraints": constraints, "storage": str(folder / "runs"), "spec": "spec.yaml"}
    tree["search"] |= {"start_from": [], "learn_from": []}
    _write(folder / "spec.yaml", unflatten(spec))
    _write(folder / "sweep.yaml", tree)
    small = load_sweep(folder / "sweep.yaml")
    # The encryption key is not written to any file.
    key = {"encryption_key": sweep.experiment.encryption_key}
    return replace(small, experiment=small.experiment.model_copy(update=key))


def _one_epoch_space(sweep: SweepConfig) -> tuple[dict[str, Any], list[str]]:
    """Return the space with one epoch, without ranges and constraints that depend on the number of epochs."""
    parameters = [*sweep.space.parameters, *sweep.re_ranking.parameters]
    removed = {_EPOCHS}
    for parameter in parameters:  # each comes after those that its conditions name
        if removed & set(parameter.condition_keys()):
            removed.add(parameter.key)
    entries = sweep.space.as_entries() | sweep.re_ranking.as_entries()
    space = {key: entry for key, entry in entries.items() if key not in removed} | {_EPOCHS: {"value": 1}}
    constraints = [*sweep.space.constraints, *sweep.re_ranking.constraints]
    return space, [constraint.text for constraint in constraints if _EPOCHS not in constraint.keys]


def _training_folders(sweep: SweepConfig, folder: Path) -> dict[str, Any]:
    samples = validate_space(sweep, SAMPLE_COUNT).experiments
    datasets = [experiment.dataset for experiment in [sweep.experiment, *samples]]
    identities = max(dataset.batch_size // dataset.num_instances for dataset in datasets)
    batch, seed = max(dataset.batch_size for dataset in datasets), sweep.experiment.dataset.validation_seed
    images = sample_training_images(
        list_training_folders(sweep.experiment),
        seeds=range(seed, seed + _SECTIONS["confirm"]["repeats"] + 1),
        fraction=sweep.experiment.dataset.validation_fraction,
        identities=identities,
        images=max(2, math.ceil(_STEPS * batch / identities)),
    )
    folders = [
        str(link_images(records, folder / "data" / f"train-{number}")) for number, records in enumerate(images, 1)
    ]
    return {"dataset.train_dataset_dir": folders if len(folders) > 1 else folders[0]}


def _validation(sweep: SweepConfig, folder: Path) -> dict[str, Any]:
    """Return the value for a few of the validation images that a spec gives; a list would name other images, too."""
    folders = validation_folders(sweep.experiment)
    if folders is None:
        return {"dataset.validation": "holdout", "dataset.validation_unseen_by": []}
    samples = sample_test_images(*read_evaluation_folders(*folders))
    for records, name in zip(samples, (QUERY, GALLERY), strict=True):
        link_images(records, folder / "data" / "validation" / name)
    return {"dataset.validation": str(folder / "data" / "validation")}


def _test_folders(sweep: SweepConfig, folder: Path) -> dict[str, Any]:
    tests = []
    for number, test in enumerate(evaluation_sets(sweep.experiment)):
        queries, gallery = sample_test_images(test.query, test.gallery)
        test_folder = folder / "data" / f"test-{number}"
        paths = str(link_images(queries, test_folder / "query")), str(link_images(gallery, test_folder / "gallery"))
        tests.append({"name": test.name, "query_dataset_dir": paths[0], "test_dataset_dir": paths[1]})
    return {
        "dataset.query_dataset_dir": tests[0]["query_dataset_dir"],
        "dataset.test_dataset_dir": tests[0]["test_dataset_dir"],
        "dataset.extra_tests": tests[1:],
        "evaluate.query_dataset": None,
        "evaluate.test_dataset": None,
    }


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


@contextmanager
def _separate_stores(folder: Path) -> Iterator[None]:
    """Keep MLflow's store and the image cache of this process and its children in a folder."""
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "REID_TUNE_CACHE_DIR": str(folder / "images")}
    with temporary_variables(variables):
        yield


def _run(small: SweepConfig, until: str) -> None:
    from reid_tune.sweep.run import run_sweep

    try:
        run_sweep(small, resume="never", until=until, is_smoke_test=True)
    except ReidTuneError:
        _print_failed_runs(small)
        raise
    failed = _print_failed_runs(small)
    if failed:
        raise RunFailedError(f"smoke: {failed[0].name} failed: {failed[0].reason}")


def _print_failed_runs(small: SweepConfig) -> list[RunState]:
    """Print the logs of the failed runs to stderr, as they are about to be removed, and return the runs."""
    runs = replay(read_events(small.folder / EVENTS)).runs.values()
    failed = [run for run in runs if run.state == "failed"]
    for run in failed:
        log = small.folder / run.name / "log.txt"
        print(f"{run.name}:\n{log.read_text(errors='replace') if log.is_file() else ''}", file=sys.stderr)
    return failed
