"""The recipe of the registered champion, as a sweep reads it before it begins."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint
from reid_tune.config.load import with_parameters
from reid_tune.data.fingerprint import image_fingerprints
from reid_tune.data.records import read_image_folder
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InfrastructureError
from reid_tune.execution.run_source import ONE_CPU
from reid_tune.execution.stage_resources import StageResources
from reid_tune.journal.costs import EpochTiming
from reid_tune.journal.event_log import read_events
from reid_tune.journal.events import ChampionRead
from reid_tune.journal.journal import Journal
from reid_tune.modeling.network import build_seeded_network
from reid_tune.search.reserve import FullLength, estimate_confirm
from reid_tune.search_space.load import SweepConfig
from reid_tune.sweep.champion import (
    describe_champion,
    read_champion,
    read_champion_again,
    read_missing_champion,
    recorded_champions,
    with_unseen_by_champion,
)
from reid_tune.training.data_split import load_split

from ..helpers.events import sweep_header
from ..helpers.simulated_driver import SPEC, make_sweep


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A registry without a store: the value of `champion` is its answer, or the error that it raises."""
    answers: dict[str, Any] = {"champion": None}

    def answer(uri: str, model: str, alias: str) -> Any:
        assert (uri, model, alias) == ("uri", "model", "champion")
        if isinstance(answers["champion"], Exception):
            raise answers["champion"]
        return answers["champion"]

    monkeypatch.setattr("reid_tune.sweep.champion.read_champion_spec", answer)
    return answers


def spec_of(sweep: SweepConfig, **values: Any) -> str:
    parameters = {key.replace("__", "."): value for key, value in values.items()}
    return with_parameters(sweep.experiment, parameters, "champion").to_yaml()


def test_a_recipe_has_neither_data_nor_seeds_nor_resources(tmp_path: Path, registry: dict[str, Any]) -> None:
    sweep = make_sweep(tmp_path)
    recipe = {"train.optim.base_lr": 0.005, "train.num_epochs": 4, "dataset.batch_size": 32}
    others = {"train__seed": 9, "dataset__train_dataset_dir": "elsewhere", "dataset__validation_seed": 3}
    values = {key.replace(".", "__"): value for key, value in recipe.items()} | others
    registry["champion"] = (7, spec_of(sweep, **values))
    champion = read_champion(sweep, "uri")
    assert (champion.version, champion.parameters, champion.problem) == (7, recipe, "")
    assert with_unseen_by_champion(sweep, champion) is sweep and not describe_champion(champion)


def test_a_recipe_has_the_costs_of_the_sweep_s_objectives(tmp_path: Path, registry: dict[str, Any]) -> None:
    tree = {"model": {"backbone": "test_resnet", "feat_dim": 16}, "dataset": {"train_dataset_dir": "nowhere"}}
    sweep = make_sweep(tmp_path, tree, objective=[{"metric": "mAP"}, {"metric": "embedding_dim"}])
    registry["champion"] = (2, spec_of(sweep, model__feat_dim=32))
    assert read_champion(sweep, "uri").costs == {"embedding_dim": 32}


@pytest.mark.parametrize(
    ("answer", "version", "problem"),
    [
        (None, None, ""),
        (InfrastructureError("the store does not answer."), None, "the registry could not be read: the store does no"),
        ((7, None), 7, "version 7 has no spec.yaml that can be read"),
        ((7, "- a\n"), 7, "the recipe of version 7 cannot be trained here: its spec.yaml is not a spec"),
        ((7, "{"), 7, "the recipe of version 7 cannot be trained here: its spec.yaml is not a spec"),
        (
            (7, "train: {optim: {base_lr: -1}}"),
            7,
            "the recipe of version 7 cannot be trained here: its spec.yaml: train.",
        ),
        (
            (7, "train: {gone: 1}"),
            7,
            "the recipe of version 7 cannot be trained here: its spec.yaml: unknown key train.gone",
        ),
        (
            (7, yaml.safe_dump({"model": {"pretrained_model_path": "/gone.pth", "pretrain_choice": "self"}})),
            7,
            "the recipe of version 7 cannot be trained here: cannot read the pretrained weights /gone.pth",
        ),
    ],
)
def test_a_champion_that_cannot_be_trained_is_described(
    tmp_path: Path, registry: dict[str, Any], answer: Any, version: int | None, problem: str
) -> None:
    registry["champion"] = answer
    champion = read_champion(make_sweep(tmp_path), "uri")
    assert (
        champion.version == version and champion.problem.startswith(problem) and bool(champion.problem) == bool(problem)
    )
    beginning = "the winner will not be compared with" if version else "it is not known whether there is a champion"
    assert [warning.startswith(beginning) for warning in describe_champion(champion)] == [True] * bool(problem)


def test_a_recipe_has_the_default_of_each_key_that_its_spec_does_not_give(
    tmp_path: Path, registry: dict[str, Any]
) -> None:
    sweep = make_sweep(tmp_path, SPEC | {"dataset": {"train_dataset_dir": "nowhere", "re_prob": 0.25}})
    tree = yaml.safe_load(spec_of(sweep))
    del tree["dataset"]["re_prob"]
    registry["champion"] = (7, yaml.safe_dump(tree))
    assert read_champion(sweep, "uri").parameters == {"dataset.re_prob": 0.5}


def test_a_repetition_of_confirm_keeps_the_champion_of_its_log_if_the_registry_cannot_be_read(
    tmp_path: Path, registry: dict[str, Any]
) -> None:
    sweep, recorded = make_sweep(tmp_path), ChampionRead(version=7)
    registry["champion"] = InfrastructureError("the store does not answer.")
    assert read_champion_again(sweep, "uri", recorded) is recorded
    registry["champion"] = (8, spec_of(sweep, train__num_epochs=4))
    champion = read_champion_again(sweep, "uri", recorded)
    assert (champion.version, champion.parameters) == (8, {"train.num_epochs": 4})
    registry["champion"] = None
    champion = read_champion_again(sweep, "uri", recorded)
    assert (champion.version, champion.problem) == (None, "")


def test_a_registry_that_was_unreachable_is_asked_again(tmp_path: Path, registry: dict[str, Any]) -> None:
    sweep, unreachable = make_sweep(tmp_path), InfrastructureError("the store does not answer.")
    registry["champion"] = unreachable
    journal = Journal(tmp_path / "x")
    journal.emit(sweep_header(tracking_uri="uri"))
    for answer, problem, count in (
        (None, "", 0),
        (unreachable, "the registry could not be read: the store does not answer", 1),
        ((7, None), "version 7 has no spec.yaml that can be read", 2),
        ((8, None), "version 7 has no spec.yaml that can be read", 2),
    ):
        registry["champion"] = answer
        if count == 1:
            journal.emit(read_champion(sweep, "uri"))
        read_missing_champion(sweep, journal)
        assert (journal.state.champion.problem if journal.state.champion else "") == problem
        assert len(recorded_champions(read_events(journal.path))) == count


def test_no_validation_split_has_identities_that_the_champion_s_weights_have_seen(
    tmp_path: Path, registry: dict[str, Any]
) -> None:
    draw_demo_data(tmp_path / "data", identities=60, images=4)
    folder = tmp_path / "data" / "bounding_box_train"
    tree = {
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 16},
        "dataset": {"train_dataset_dir": str(folder), "batch_size": 8},
    }
    sweep = make_sweep(tmp_path, tree)
    records = read_image_folder(folder).records
    identities = sorted({record.identity for record in records})

    def champion_of(seen: set[int], **options: Any) -> ChampionRead:
        images = torch.from_numpy(image_fingerprints([record for record in records if record.identity in seen]))
        network = build_seeded_network(sweep.experiment.model, 4, seed=0)
        path = tmp_path / f"seen-{len(seen)}.pth"
        save_checkpoint(path, Checkpoint({}, 1, [1, 2, 3, 4], [], network.state_dict(), {}, images=images))
        values = {"model__pretrained_model_path": str(path), "model__pretrain_choice": "self"}
        registry["champion"] = (3, spec_of(sweep, **values))
        return read_champion(sweep, "uri", **options)

    half = set(identities[::2])
    champion = champion_of(half)
    assert champion.unseen_by == str(tmp_path / f"seen-{len(half)}.pth") and not champion.problem
    drawn = with_unseen_by_champion(sweep, champion)
    assert drawn.experiment.dataset.validation_unseen_by == (champion.unseen_by,)
    assert not half & {record.identity for record in load_split(drawn.experiment).query}
    assert "validation identities of this sweep" in champion_of(half, has_begun=True).problem

    assert "trained on images of" in champion_of(set(identities)).problem


def test_the_estimate_of_confirm_has_the_repeats_of_the_champion(tmp_path: Path) -> None:
    sweep, resources = make_sweep(tmp_path, confirm={"candidates": 1, "repeats": 5}), StageResources(ONE_CPU, 1)
    candidates = [FullLength(EpochTiming(0.0, 1.0), 6)] * 2

    def epochs(champion: ChampionRead | None) -> float:
        return estimate_confirm(sweep, candidates, resources, champion).epochs

    assert epochs(None) == epochs(ChampionRead()) == 2 * 5 * 6
    assert epochs(ChampionRead(version=1)) == 2 * 5 * 6, "its repeats are those of trial 0"
    assert epochs(ChampionRead(version=1, parameters={"train.num_epochs": 4})) == 2 * 5 * 6 + 5 * 4
    assert epochs(ChampionRead(version=1, parameters={"train.num_epochs": 4}, problem="gone")) == 2 * 5 * 6


def test_the_champions_of_a_log_are_those_of_its_events() -> None:
    champions = [ChampionRead(version=1), ChampionRead(version=2)]
    assert recorded_champions(champions) == champions
