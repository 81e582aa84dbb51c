"""Load a search-space file and the spec that it names."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reid_tune.config.dataset import VALIDATION_CHOICES
from reid_tune.config.experiment import Experiment, canonical_key
from reid_tune.config.load import LoadedSpec, build_spec
from reid_tune.config.pydantic_messages import combine_errors, find_faults
from reid_tune.config.resolved_values import find_path_problem
from reid_tune.config.yaml_reader import parse_overrides, read_yaml
from reid_tune.errors import InputError, error_context
from reid_tune.search_space.bundles import expand_bundles
from reid_tune.search_space.costs import MAX_NETWORKS, network_text
from reid_tune.search_space.parse import find_space_errors
from reid_tune.search_space.ranges import Choice
from reid_tune.search_space.schema import UNION_TAGS, SweepFile
from reid_tune.search_space.space import SearchSpace, grid_configurations, plain_values
from reid_tune.search_space.weights import WEIGHTS_KEY, absolute_path, absolute_weights
from reid_tune.storage.download_cache import mirror_folder
from reid_tune.storage.object_store import is_url
from reid_tune.storage.s3 import S3Store

__all__ = ["SweepConfig", "count_configurations", "load_sweep"]

_DEFAULT_TRIALS = 32
_VALIDATION = "dataset.validation"
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
        weights_references: By reference such as `models:/NAME@ALIAS` the file of pretrained weights that replaces it.
        notes: Lines about values of the spec that have no effect or were left out.
    """

    file: SweepFile
    space: SearchSpace
    re_ranking: SearchSpace
    experiment: Experiment
    folder: Path
    source: Path
    remote: S3Store | None = None
    weights_references: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def location(self) -> str:
        """Address or folder of the sweep's files, for messages."""
        return str(self.remote or self.folder)

    @property
    def weights(self) -> list[str]:
        """Files of pretrained weights and references to them, of the spec, the space and `start_from`, each once."""
        parameters = [parameter for parameter in self.space.parameters if parameter.key == WEIGHTS_KEY]
        ranges = [branch.range for parameter in parameters for branch in parameter.branches]
        options = [option for choice in ranges if isinstance(choice, Choice) for option in choice.options]
        points = [entry for entry in self.file.search.start_from if isinstance(entry, Mapping)]
        pairs = [(canonical_key(str(key)), value) for point in points for key, value in point.items()]
        started = [absolute_weights(value) for key, value in pairs if key == WEIGHTS_KEY]
        files = [self.experiment.model.pretrained_model_path, *options, *started]
        return list(dict.fromkeys(file for file in files if isinstance(file, str) and file))


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> SweepConfig:
    """Load a search-space file and the spec that it names.

    All paths in the experiment become absolute. Paths of data are relative to the current folder.

    Args:
        path: Path of the search-space file.
        overrides: `sweep.KEY=value` for the file, `key=value` for the spec.

    Raises:
        InputError: the file or the spec is invalid; all errors of the file are named, or all of the spec.
    """
    path = Path(path)
    pairs = parse_overrides(overrides)
    file_overrides = {key.removeprefix("sweep."): value for key, value in pairs.items() if key.startswith("sweep.")}
    spec_overrides = {key: value for key, value in pairs.items() if not key.startswith("sweep.")}
    tree = _override(read_yaml(path), file_overrides)
    file, faults = find_faults(SweepFile, tree, union_tags=UNION_TAGS)
    errors = [fault.message for fault in faults]
    errors += [
        f"{key}: {problem}." for key in ("spec", "storage") if (problem := find_path_problem(str(tree.get(key, ""))))
    ]
    loaded, spec_error = _load_spec(path, tree, spec_overrides)
    experiment = _trial_base(loaded.experiment if loaded else Experiment())
    entries, bundled, is_whole = _space_entries(tree, errors)
    texts = [text for text in _sequence(tree.get("constraints")) if isinstance(text, str)]
    if "space" not in tree and "bundle" not in tree:
        errors.append("space is missing.")
    base = plain_values(experiment)
    space, re_ranking = find_space_errors(
        entries, texts, base, str(path), errors, has_spec=bool(loaded), is_whole=is_whole, bundled=bundled
    )
    if error := combine_errors(str(path), errors) if errors else spec_error:
        raise error
    assert file and loaded
    if any(parameter.key == WEIGHTS_KEY for parameter in space.parameters):
        entries = space.as_entries() | re_ranking.as_entries()  # with absolute paths
    file = _with_defaults(file.model_copy(update={"space": entries, "bundle": []}), space, path)
    remote = None
    if is_url(file.storage):
        with error_context(f"{path}: storage = {file.storage!r}"):
            remote = S3Store(file.storage) / file.name
    folder = (mirror_folder("drivers", file.storage) if remote else Path(file.storage)).absolute() / file.name
    return SweepConfig(file, space, re_ranking, experiment, folder, path, remote, notes=loaded.notes)


def _load_spec(
    path: Path, tree: Mapping[str, Any], overrides: Mapping[str, Any]
) -> tuple[LoadedSpec | None, InputError | None]:
    """Return the spec that a search-space file names, or the reason why it cannot be loaded; neither without a name."""
    name = tree.get("spec")
    if not isinstance(name, str) or not name or find_path_problem(name):
        return None, None
    spec = (path.parent / name).resolve()
    try:
        with error_context(f"{path}: spec"):
            tree_of_spec = read_yaml(spec)
        return _build_sweep_spec(tree_of_spec, overrides, str(spec)), None
    except InputError as error:
        return None, error


def _build_sweep_spec(tree: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> LoadedSpec:
    """Return the spec with the folder that `dataset.validation` gives, otherwise with a validation split.

    Without this, `auto` would take the test set, which may decide nothing.
    """
    drawn = build_spec(tree, {**overrides, _VALIDATION: "holdout"}, source)
    section = tree.get("dataset")
    value = overrides.get(_VALIDATION, section.get("validation") if isinstance(section, Mapping) else None)
    if isinstance(value, str) and value not in VALIDATION_CHOICES:
        loaded = build_spec(tree, overrides, source)
        return drawn if loaded.experiment.dataset.validation in VALIDATION_CHOICES else loaded
    if value not in ("none", "test"):
        return drawn
    note = f"{_VALIDATION} = {value}: a sweep decides by a validation split, so it takes holdout"
    return replace(drawn, notes=(*drawn.notes, note))


def _space_entries(tree: Mapping[str, Any], errors: list[str]) -> tuple[dict[str, Any], Collection[str], bool]:
    """Return the entries of the section `space` with those of all bundles.

    Returns:
        The entries, those of bundles first; the keys of bundles; whether both sections could be read.
    """
    section, count = tree.get("space", {}), len(errors)
    space = {str(key): entry for key, entry in section.items()} if isinstance(section, Mapping) else {}
    bundles = expand_bundles(tree.get("bundle", []), errors)
    is_whole = isinstance(section, Mapping) and len(errors) == count
    for key in space:
        if canonical_key(key) in bundles:
            errors.append(f"space.{key} is also in a bundle: keep one of the two.")
    entries = bundles | {key: entry for key, entry in space.items() if canonical_key(key) not in bundles}
    return entries, bundles.keys(), is_whole


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _with_defaults(file: SweepFile, space: SearchSpace, path: Path) -> SweepFile:
    """Return the file with the defaults that follow from other values."""
    registry = file.registry.model_copy(update={"model": file.registry.model or file.name})
    return _with_budget(file.model_copy(update={"registry": registry}), space, path)


def _with_budget(file: SweepFile, space: SearchSpace, path: Path) -> SweepFile:
    """Return the file with the number of trials, at most the number of configurations of a small space and trial 0."""
    trials = file.budget.trials
    if file.search.sampler == "grid":
        grid_size = 1 + len(grid_configurations(space))
        trials = min(trials or grid_size, grid_size)
    else:
        trials = trials or _DEFAULT_TRIALS
        trials = min(trials, 1 + count_configurations(space, trials, with_costs=False))
    return file.model_copy(update={"budget": file.budget.model_copy(update={"trials": trials})})


def count_configurations(space: SearchSpace, limit: int, *, with_costs: bool = True) -> int:
    """Return the number of configurations without the spec's own that satisfy the constraints, at most `limit`.

    It is `limit` too if the number is not known: of a space with continuous ranges or more than 10,000 combinations, or
    with constraints on the costs of more than 100 networks.

    Args:
        space: Search space.
        limit: Largest number to return.
        with_costs: Whether constraints on costs of the network count.
    """
    if not space.is_finite:
        return limit
    with_costs, allowed = with_costs and space.has_cost_constraints, list[dict[str, Any]]()
    for seen, configuration in enumerate(space.all_configurations()):
        if seen >= _MAX_COUNTED or (len(allowed) >= limit and not with_costs):
            return limit
        if (space.base | configuration) != space.base and space.allows(configuration, with_costs=False):
            allowed.append(configuration)
    if with_costs:
        if len({network_text(space.base | configuration) for configuration in allowed}) > MAX_NETWORKS:
            return limit
        allowed = list(filter(space.allows, allowed))
    return min(len(allowed), limit)


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
            folders[key] = absolute_path(getattr(dataset, key))
    if dataset.validation not in VALIDATION_CHOICES:
        folders["validation"] = absolute_path(dataset.validation)
    if dataset.validation_unseen_by:
        folders["validation_unseen_by"] = tuple(map(absolute_path, dataset.validation_unseen_by))
    train = tuple(map(absolute_path, dataset.train_folders))
    if train:
        folders["train_dataset_dir"] = train if len(train) > 1 else train[0]
    dataset = dataset.model_copy(update=folders)
    model = model.model_copy(update={"pretrained_model_path": absolute_weights(model.pretrained_model_path)})
    section = experiment.train.model_copy(update={"checkpoint_interval": experiment.train.num_epochs})
    return experiment.model_copy(update={"dataset": dataset, "model": model, "train": section})
