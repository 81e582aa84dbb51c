"""The registered champion as a contestant: its recipe, and validation splits that its weights have not seen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reid_tune.config.encryption_key import find_passphrase
from reid_tune.config.experiment import Experiment
from reid_tune.config.load import build_experiment, with_parameters
from reid_tune.config.model import pretrained_choice
from reid_tune.config.yaml_reader import parse_value
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.journal.events import ChampionRead, Event
from reid_tune.journal.journal import Journal
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.parse import changes_training
from reid_tune.search_space.space import plain_values
from reid_tune.tracking.registry.champion import read_champion_spec
from reid_tune.tracking.store import with_credentials
from reid_tune.training.data_split import load_split
from reid_tune.training.seen_images import find_seen_identities
from reid_tune.training.weights_file import weights_images

__all__ = [
    "describe_champion",
    "read_champion",
    "read_champion_again",
    "read_missing_champion",
    "recorded_champions",
    "with_unseen_by_champion",
]


def recorded_champions(events: Sequence[Event]) -> list[ChampionRead]:
    """Return the champions in a sweep's log: the one of its beginning, and those of each repetition of `confirm`."""
    return [event for event in events if isinstance(event, ChampionRead)]


def read_champion(sweep: SweepConfig, uri: str, *, has_begun: bool = False) -> ChampionRead:
    """Return the recipe of the version that has the alias of the search-space file.

    The recipe is the values of all keys that a space may search. Data, seeds and resources are those of the sweep.

    Args:
        sweep: The sweep, with the validation splits that its own weights leave.
        uri: Address of the MLflow store.
        has_begun: Whether the sweep has runs, so that its validation splits cannot be drawn in another way.
    """
    registry = sweep.file.registry
    try:
        champion = read_champion_spec(uri, registry.model or sweep.file.name, registry.alias)
    except (InfrastructureError, InputError) as error:
        return ChampionRead(problem=f"the registry could not be read: {_one_line(error)}")
    if champion is None:
        return ChampionRead()
    version, text = champion
    if text is None:
        return ChampionRead(version=version, problem=f"version {version} has no spec.yaml that can be read")
    try:
        return _read_recipe(sweep, version, text, has_begun)
    except (InfrastructureError, InputError) as error:
        problem = f"the recipe of version {version} cannot be trained here: {_one_line(error)}"
        return ChampionRead(version=version, problem=problem)


def read_champion_again(sweep: SweepConfig, uri: str, recorded: ChampionRead) -> ChampionRead:
    """Return the champion of now for a sweep that repeats `confirm`; the recorded one if the registry cannot be read.

    Args:
        sweep: The sweep, with its validation splits.
        uri: Address of the MLflow store.
        recorded: Champion in its log.
    """
    champion = read_champion(sweep, uri, has_begun=True)
    return recorded if _is_unread(champion) else champion


def read_missing_champion(sweep: SweepConfig, journal: Journal) -> None:
    """Read and record the champion if the registry could not be read when the sweep began."""
    recorded = journal.state.champion
    if recorded is not None and _is_unread(recorded):
        champion = read_champion_again(sweep, with_credentials(journal.state.header.tracking_uri), recorded)
        if champion is not recorded:
            journal.emit(champion)


def _is_unread(champion: ChampionRead) -> bool:
    return champion.version is None and bool(champion.problem)


def _read_recipe(sweep: SweepConfig, version: int, text: str, has_begun: bool) -> ChampionRead:
    parameters = _parameters(sweep, text)
    experiment = with_parameters(sweep.experiment, parameters, "its spec.yaml")
    costs: dict[str, float] = {}
    if sweep.file.costs:
        from reid_tune.modeling.cost import model_cost

        model_costs = model_cost(experiment)
        costs = {name: model_costs[name] for name in sweep.file.costs}
    weights = _leaking_weights(experiment)
    if weights is not None:
        if has_begun or sweep.experiment.dataset.validation != "holdout":
            raise InputError(f"{weights} was trained on images of validation identities of this sweep")
        load_split(_without_seen(sweep, weights).experiment)  # The check that enough identities are left.
    return ChampionRead(version=version, parameters=parameters, costs=costs, unseen_by=weights)


def _parameters(sweep: SweepConfig, text: str) -> dict[str, Any]:
    """Return the values of the recipe in a spec that differ from those of the sweep's spec.

    Raises:
        InputError: the text is not a spec, or one that this release does not read.
    """
    try:
        tree = parse_value(text, "spec.yaml")
    except InputError:
        tree = None
    if not isinstance(tree, dict):
        raise InputError("its spec.yaml is not a spec")
    values, base = plain_values(build_experiment(tree, {}, "its spec.yaml")), plain_values(sweep.experiment)
    return {key: value for key, value in values.items() if changes_training(key) and value != base[key]}


def _leaking_weights(experiment: Experiment) -> str | None:
    """Return the file of a recipe's pretrained weights if they have seen identities that may validate, else None.

    Raises:
        InputError: the file cannot be read.
    """
    weights = experiment.model.pretrained_model_path
    passphrase = find_passphrase(experiment)
    if not weights or not pretrained_choice(experiment.model) or weights_images(weights, passphrase) is None:
        return None
    split = load_split(experiment)
    is_drawn = experiment.dataset.validation == "holdout"
    records = [*split.query, *split.gallery, *(split.train if is_drawn else ())]
    seen = find_seen_identities(records, [weights], passphrase)
    excluded = find_seen_identities(records, experiment.dataset.validation_unseen_by, passphrase) if is_drawn else set()
    return weights if seen - excluded else None


def with_unseen_by_champion(sweep: SweepConfig, champion: ChampionRead) -> SweepConfig:
    """Return the sweep with validation splits of identities that the champion's pretrained weights have not seen."""
    return sweep if champion.unseen_by is None else _without_seen(sweep, champion.unseen_by)


def _without_seen(sweep: SweepConfig, weights: str) -> SweepConfig:
    dataset = sweep.experiment.dataset
    unseen_by = tuple(dict.fromkeys([*dataset.validation_unseen_by, weights]))
    dataset = dataset.model_copy(update={"validation_unseen_by": unseen_by})
    return replace(sweep, experiment=sweep.experiment.model_copy(update={"dataset": dataset}))


def describe_champion(champion: ChampionRead | None) -> list[str]:
    """Return a warning if the winner cannot be compared with the champion."""
    if champion is None or not champion.problem:
        return []
    if _is_unread(champion):
        return [f"it is not known whether there is a champion, and confirm asks again: {champion.problem}."]
    return [f"the winner will not be compared with the champion, and will not replace it: {champion.problem}."]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
