"""Load a search-space file and the spec that it names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_tune.checkpoints.filenames import is_reference
from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_spec
from reid_tune.config.pydantic_messages import validate
from reid_tune.config.resolved_values import find_path_problem
from reid_tune.config.yaml_reader import parse_overrides, read_yaml
from reid_tune.errors import InputError, error_context
from reid_tune.search_space.parse import parse_spaces
from reid_tune.search_space.schema import UNION_TAGS, SweepFile
from reid_tune.search_space.space import SearchSpace, grid_configurations, plain_values
from reid_tune.storage.download_cache import mirror_folder
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store

__all__ = ["SweepConfig", "load_sweep"]

_MAX_COUNTED = 10_000  # configurations of a space without continuous ranges


@dataclass(frozen=True)
class SweepConfig:
    """A resolved sweep: values of the file, base experiment and folder.

    Attributes:
        file: Values of the search-space file.
        space: Search space of the trials.
        re_ranking: Search space of the stage `rerank`, without parameters if the file searches no re-ranking.
        experiment: Spec of trial 0, with absolute paths.
        folder: Folder with the sweep's files; for a sweep at `s3://...` the driver's copy of them.
        source: Path of the search-space file, for messages.
        remote: Object store with the sweep's files, None if they are on this machine.
        weights_reference: Reference such as `models:/NAME@ALIAS` that the spec's file of pretrained weights replaces,
            empty if the spec names a file or nothing.
        notes: Lines about values of the spec that have no effect or were left out.
    """

    file: SweepFile
    space: SearchSpace
    re_ranking: SearchSpace
    experiment: Experiment
    folder: Path
    source: Path
    remote: S3Store | None = None
    weights_reference: str = ""
    notes: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        """Address or folder of the sweep's files, for messages."""
        return str(self.remote or self.folder)


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> SweepConfig:
    """Load a search-space file and the spec that it names.

    All paths in the experiment become absolute. Paths of data are relative to the current folder.

    Args:
        path: Path of the search-space file.
        overrides: `sweep.KEY=value` for the file, `key=value` for the spec.

    Raises:
        InputError: the file or the spec is invalid; all errors of one of them are named.
    """
    path = Path(path)
    pairs = parse_overrides(overrides)
    file_overrides = {key.removeprefix("sweep."): value for key, value in pairs.items() if key.startswith("sweep.")}
    spec_overrides = {key: value for key, value in pairs.items() if not key.startswith("sweep.")}
    tree = _override(read_yaml(path), file_overrides)
    file = validate(SweepFile, tree, str(path), union_tags=UNION_TAGS)
    for key, value in (("spec", file.spec), ("storage", file.storage)):
        if problem := find_path_problem(value):
            raise InputError(f"{path}: {key}: {problem}.")
    spec = (path.parent / file.spec).resolve()
    loaded = build_spec(read_yaml(spec), {**spec_overrides, "dataset.validation": "holdout"}, str(spec))
    remote = None
    if is_url(file.storage):
        with error_context(f"{path}: storage = {file.storage!r}"):
            remote = S3Store(file.storage) / file.name
    folder = (mirror_folder("drivers", file.storage) if remote else Path(file.storage)).absolute() / file.name
    experiment = _trial_base(loaded.experiment)
    space, re_ranking = parse_spaces(file.space, file.constraints, plain_values(experiment), str(path))
    file = _with_budget(file, space, path)
    return SweepConfig(file, space, re_ranking, experiment, folder, path, remote, notes=loaded.notes)


def _with_budget(file: SweepFile, space: SearchSpace, path: Path) -> SweepFile:
    """Return the file with the number of trials, at most the number of configurations of a small space and trial 0."""
    trials = file.budget.trials
    if file.search.sampler == "grid":
        grid_size = 1 + len(grid_configurations(space))
        trials = min(trials or grid_size, grid_size)
    elif not trials:
        raise InputError(f"{path}: budget.trials is missing.")
    elif space.is_finite:
        trials = min(trials, 1 + _count_configurations(space, trials))
    return file.model_copy(update={"budget": file.budget.model_copy(update={"trials": trials})})


def _count_configurations(space: SearchSpace, limit: int) -> int:
    """Return the number of configurations that satisfy the constraints, or `limit` if there may be as many."""
    count = 0
    for seen, configuration in enumerate(space.all_configurations()):
        if count >= limit or seen >= _MAX_COUNTED:
            return limit
        count += (space.base | configuration) != space.base and space.allows(configuration)
    return count


def _override(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in overrides.items():
        head, dot, tail = key.partition(".")
        if dot:
            section = merged.get(head)
            merged[head] = {**(section if isinstance(section, Mapping) else {}), tail: value}
        else:
            merged[head] = value
    return merged


def _trial_base(experiment: Experiment) -> Experiment:
    """Return the base of all trials: with absolute folders, and no checkpoints except the last one."""
    dataset, model = experiment.dataset, experiment.model
    folders: dict[str, Any] = {}
    for key in ("test_dataset_dir", "query_dataset_dir"):
        if getattr(dataset, key):
            folders[key] = _absolute(getattr(dataset, key))
    train = tuple(map(_absolute, dataset.train_folders))
    if train:
        folders["train_dataset_dir"] = train if len(train) > 1 else train[0]
    dataset = dataset.model_copy(update=folders)
    if model.pretrained_model_path and not is_reference(model.pretrained_model_path):
        model = model.model_copy(update={"pretrained_model_path": _absolute(model.pretrained_model_path)})
    section = experiment.train.model_copy(update={"checkpoint_interval": experiment.train.num_epochs})
    return experiment.model_copy(update={"dataset": dataset, "model": model, "train": section})


def _absolute(path: str) -> str:
    return path if is_url(path) else str(Path(path).absolute())
