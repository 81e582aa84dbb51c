"""A whole sweep on a handful of images: about two steps of everything, in a folder that is gone behind it."""

import json
import math
import sys
import tempfile
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
from reid_tune.search.validation import SAMPLE_COUNT, validate_space
from reid_tune.search_space.load import SweepConfig, load_sweep
from reid_tune.sweep.pretrained import pinned_pretrained_weights
from reid_tune.sweep.sample_images import link_images, sample_test_images, sample_training_images
from reid_tune.tasks.common.evaluation_sets import evaluation_sets
from reid_tune.training.subsets import list_training_folders

__all__ = ["make_small_sweep", "run_smoke_test"]

EPOCHS = "train.num_epochs"
STEPS = 2  # of an epoch, about
SECTIONS: dict[str, Any] = {
    "scheduler": {"name": "none"},
    "budget": {"trials": 2},
    "confirm": {"top": 1, "seeds": 1},
    "refit": {"seeds": 1},
}


def run_smoke_test(path: Path, overrides: Sequence[str] = (), until: str = STAGES[-1]) -> str:
    """Run the stages of a search-space file on a handful of its images; returns one line that says so.

    The sweep is an ordinary one, with a storage, an MLflow store and an image cache of its own. The log of a run that
    fails is printed to stderr.

    Raises:
        InputError: as of a sweep of the file.
        RunFailedError: a run of any stage failed.
    """
    began = time.monotonic()
    tests = "test" in STAGES[: STAGES.index(until) + 1]
    folder = tempfile.TemporaryDirectory(prefix="reid-tune-smoke-", ignore_cleanup_errors=True)
    with folder as name, pinned_pretrained_weights(load_sweep(path, overrides), None) as sweep:
        small = make_small_sweep(sweep, Path(name), tests=tests)
        images = sum(1 for found in Path(name).rglob("*") if found.is_symlink())
        with _own_places(Path(name)):
            _run(small, until)
    which = "all stages" if until == STAGES[-1] else f"the stages up to {until}"
    return f"smoke: {which} ran in {time.monotonic() - began:.0f} s on {images} images"


def make_small_sweep(sweep: SweepConfig, folder: Path, *, tests: bool) -> SweepConfig:
    """A sweep with the space, network and resources of another one, of two trials of one epoch, on few images.

    Args:
        folder: Gets its file, its spec and links to the images.
        tests: Whether there shall be test folders.

    Raises:
        InputError: the space or the data are unusable.
    """
    spec = sweep.experiment.parameters() | {EPOCHS: 1} | _training(sweep, folder)
    if tests:
        spec |= _tests(sweep, folder)
    space, constraints = _space(sweep)
    tree = sweep.file.model_dump(mode="json") | SECTIONS
    tree |= {"space": space, "constraints": constraints, "storage": str(folder / "runs"), "spec": "spec.yaml"}
    tree["search"]["start_from"] = []
    _write(folder / "spec.yaml", unflatten(spec))
    _write(folder / "sweep.yaml", tree)
    small = load_sweep(folder / "sweep.yaml")
    # The key is written nowhere.
    secret = {"encryption_key": sweep.experiment.encryption_key}
    return replace(small, experiment=small.experiment.model_copy(update=secret))


def _space(sweep: SweepConfig) -> tuple[dict[str, Any], list[str]]:
    """The space with one epoch, without ranges and constraints that look at their number."""
    parameters = [*sweep.space.parameters, *sweep.re_ranking.parameters]
    gone = {EPOCHS}
    for parameter in parameters:  # each stands behind those that its conditions look at
        if gone & set(parameter.condition_keys()):
            gone.add(parameter.key)
    entries = sweep.space.as_entries() | sweep.re_ranking.as_entries()
    space = {key: entry for key, entry in entries.items() if key not in gone} | {EPOCHS: {"value": 1}}
    constraints = [*sweep.space.constraints, *sweep.re_ranking.constraints]
    return space, [constraint.text for constraint in constraints if EPOCHS not in constraint.keys]


def _training(sweep: SweepConfig, folder: Path) -> dict[str, Any]:
    datasets = [experiment.dataset for experiment in [sweep.experiment, *validate_space(sweep, SAMPLE_COUNT)]]
    identities = max(dataset.batch_size // dataset.num_instances for dataset in datasets)
    batch, seed = max(dataset.batch_size for dataset in datasets), sweep.experiment.dataset.validation_seed
    chosen = sample_training_images(
        list_training_folders(sweep.experiment),
        seeds=range(seed, seed + SECTIONS["confirm"]["seeds"] + 1),
        fraction=sweep.experiment.dataset.validation_fraction,
        identities=identities,
        images=max(2, math.ceil(STEPS * batch / identities)),
    )
    linked = [
        str(link_images(records, folder / "data" / f"train-{number}")) for number, records in enumerate(chosen, 1)
    ]
    return {"dataset.train_dataset_dir": linked if len(linked) > 1 else linked[0]}


def _tests(sweep: SweepConfig, folder: Path) -> dict[str, Any]:
    linked = []
    for number, test in enumerate(evaluation_sets(sweep.experiment)):
        queries, gallery = sample_test_images(test.query, test.gallery)
        place = folder / "data" / f"test-{number}"
        paths = str(link_images(queries, place / "query")), str(link_images(gallery, place / "gallery"))
        linked.append({"name": test.name, "query_dataset_dir": paths[0], "test_dataset_dir": paths[1]})
    own, *extra = linked
    return {
        "dataset.query_dataset_dir": own["query_dataset_dir"],
        "dataset.test_dataset_dir": own["test_dataset_dir"],
        "dataset.extra_tests": extra,
        "evaluate.query_dataset": None,
        "evaluate.test_dataset": None,
    }


def _write(path: Path, tree: dict[str, Any]) -> None:
    # JSON makes lists of tuples.
    path.write_text(yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False, allow_unicode=True))


@contextmanager
def _own_places(folder: Path) -> Iterator[None]:
    """Keep MLflow's store and the image cache of this process and its children in a folder."""
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "REID_TUNE_CACHE_DIR": str(folder / "images")}
    with temporary_variables(own):
        yield


def _run(small: SweepConfig, until: str) -> None:
    from reid_tune.sweep.run import run_sweep

    try:
        run_sweep(small, resume="never", until=until)
    except ReidTuneError:
        _failed(small)
        raise
    if failed := _failed(small):
        raise RunFailedError(f"smoke: {failed[0].name} failed: {failed[0].reason}")


def _failed(small: SweepConfig) -> list[RunState]:
    """The runs that failed, with their logs on stderr: they are about to be removed."""
    runs = replay(read_events(small.folder / EVENTS)).runs.values()
    failed = [run for run in runs if run.state == "failed"]
    for run in failed:
        log = small.folder / run.name / "log.txt"
        print(f"{run.name}:\n{log.read_text(errors='replace') if log.is_file() else ''}", file=sys.stderr)
    return failed
