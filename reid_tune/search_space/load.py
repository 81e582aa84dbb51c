"""The search-space file: a complete sweep."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reid_tune.config.experiment import Experiment, leaf_fields
from reid_tune.config.load import build_experiment, combine_errors, parse_overrides, read_yaml
from reid_tune.errors import InputError, error_context
from reid_tune.search_space.space import grid_configurations
from reid_tune.search_space.parse import parse_spaces
from reid_tune.search_space.schema import OBJECTIVE_FORMS, SweepFile
from reid_tune.search_space.space import SearchSpace, plain_values
from reid_tune.storage.download_cache import mirror_folder
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store
from reid_tune.tasks.references import is_reference

__all__ = ["SweepConfig", "load_sweep"]


@dataclass(frozen=True)
class SweepConfig:
    """A sweep as resolved: the file's values, its base experiment and the folder.

    Attributes:
        space: What the trials search.
        re_ranking: What the stage `rerank` searches; without parameters where the file searches none.
        folder: Where its files are; of a sweep at `s3://...` the driver's copy of them.
        remote: Where they are, if not on this machine.
        weights_reference: The reference for which the experiment has a file of pretrained weights, if there was one.
    """

    file: SweepFile
    space: SearchSpace
    re_ranking: SearchSpace
    experiment: Experiment
    folder: Path
    source: Path
    remote: S3Store | None = None
    weights_reference: str = ""

    @property
    def location(self) -> str:
        """Where its files are, for people."""
        return str(self.remote or self.folder)


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a search-space file and the spec that it names; `sweep.KEY=value` overrides the file, `key=value` the spec.

    All paths in the experiment become absolute; those of data are relative to the current folder.

    Raises:
        InputError: all that is wrong with the file, or with the spec.
    """
    path = Path(path)
    pairs = parse_overrides(overrides)
    own = {key.removeprefix("sweep."): value for key, value in pairs.items() if key.startswith("sweep.")}
    file = _validate(_with(read_yaml(path), own), path)
    spec = (path.parent / file.spec).resolve()
    rest = {key: value for key, value in pairs.items() if not key.startswith("sweep.")}
    experiment = build_experiment(read_yaml(spec), {**rest, "dataset.validation": "holdout"}, str(spec))
    remote = None
    if is_url(file.storage):
        with error_context(f"{path}: storage = {file.storage!r}"):
            remote = S3Store(file.storage) / file.name
    folder = (mirror_folder("drivers", file.storage) if remote else Path(file.storage)).absolute() / file.name
    experiment = _absolute(experiment)
    space, re_ranking = parse_spaces(file.space, file.constraints, plain_values(experiment), str(path))
    return SweepConfig(_with_budget(file, space, path), space, re_ranking, experiment, folder, path, remote)


def _with_budget(file: SweepFile, space: SearchSpace, path: Path) -> SweepFile:
    """The file with the number of trials; of a grid no more than it has, with trial 0."""
    trials = file.budget.trials
    if file.search.sampler == "grid":
        whole = 1 + len(grid_configurations(space))
        trials = min(trials or whole, whole)
    elif not trials:
        raise InputError(f"{path}: budget.trials is missing.")
    return file.model_copy(update={"budget": file.budget.model_copy(update={"trials": trials})})


def _with(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in overrides.items():
        head, dot, rest = key.partition(".")
        if dot:
            section = merged.get(head)
            merged[head] = {**(section if isinstance(section, Mapping) else {}), rest: value}
        else:
            merged[head] = value
    return merged


def _validate(tree: Mapping[str, Any], path: Path) -> SweepFile:
    try:
        return SweepFile.model_validate(tree)
    except ValidationError as error:
        raise combine_errors(str(path), [_sentence(dict(fault)) for fault in error.errors()]) from None


def _sentence(fault: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"] if part not in OBJECTIVE_FORMS)
    if fault["type"] == "missing":
        return f"{key} is missing."
    if fault["type"] == "extra_forbidden":
        leaves = [name for name, _ in leaf_fields(SweepFile)]
        leaves += {name.partition(".")[0] for name in leaves}
        near = difflib.get_close_matches(key, leaves, n=1)
        return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else ".")
    if key == "name":
        return f"name = {fault['input']!r}: use letters, digits, '.', '_' and '-', 64 at most, no path."
    if fault["type"] == "value_error":  # A rule between keys, which names them.
        return f"{key}: {fault['msg'].removeprefix('Value error, ')}.".removeprefix(": ")
    return f"{key} = {fault['input']!r}: {fault['msg'].replace('Input should', 'should', 1)}."


def _absolute(experiment: Experiment) -> Experiment:
    """The base of all trials: absolute folders, no kept checkpoints but the last."""
    dataset, model = experiment.dataset, experiment.model
    folders: dict[str, Any] = {
        key: _placed(value) for key in ("test_dataset_dir", "query_dataset_dir") if (value := getattr(dataset, key))
    }
    train = tuple(map(_placed, dataset.train_folders))
    if train:
        folders["train_dataset_dir"] = train if len(train) > 1 else train[0]
    dataset = dataset.model_copy(update=folders)
    if model.pretrained_model_path and not is_reference(model.pretrained_model_path):
        model = model.model_copy(update={"pretrained_model_path": _placed(model.pretrained_model_path)})
    section = experiment.train.model_copy(update={"checkpoint_interval": experiment.train.num_epochs})
    return experiment.model_copy(update={"dataset": dataset, "model": model, "train": section})


def _placed(path: str) -> str:
    return path if is_url(path) else str(Path(path).absolute())
