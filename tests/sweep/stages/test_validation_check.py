"""By which images a sweep validates: those that the spec gives, and none that its pretrained weights have seen."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, save_checkpoint, strip_checkpoint
from reid_tune.config.load import with_parameters
from reid_tune.data.fingerprint import image_fingerprints
from reid_tune.data.records import ImageRecord, read_image_folder
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InputError
from reid_tune.modeling.network import build_seeded_network
from reid_tune.search_space.load import SweepConfig
from reid_tune.search_space.space import plain_values
from reid_tune.sweep.smoke import make_small_sweep
from reid_tune.sweep.stages.confirm import RepeatLimit, confirm_sources
from reid_tune.sweep.stages.preflight import run_preflight
from reid_tune.sweep.stages.validation_check import describe_validation, with_unseen_holdouts
from reid_tune.tasks.split import write_split_lists
from reid_tune.training.data_split import load_split

from ...helpers.searched_sweep import journal_with
from ...helpers.simulated_driver import make_sweep

STAGES = ("preflight", "search", "confirm")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unseen") / "data"
    draw_demo_data(folder, identities=60, images=4)
    return folder


@pytest.fixture
def records(data: Path) -> tuple[ImageRecord, ...]:
    return read_image_folder(data / "bounding_box_train").records


def read(folder: Path) -> tuple[ImageRecord, ...]:
    return read_image_folder(folder).records


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_tune.sweep.stages.preflight.SAMPLE_COUNT", 20)


def sweep_of(folder: Path, data: Path, weights: Path | None, **values: Any) -> SweepConfig:
    tree = {
        "model": {"backbone": "test_resnet", "input_height": 32, "input_width": 16, "feat_dim": 16},
        "dataset": {"train_dataset_dir": str(data / "bounding_box_train"), "batch_size": 8} | values,
        "train": {"num_epochs": 6, "optim": {"warmup_iters": 1}},
    }
    if weights:
        tree["model"] |= {"pretrained_model_path": str(weights), "pretrain_choice": "self"}
    return make_sweep(folder, tree, confirm={"candidates": 1, "repeats": 3})


def described(sweep: SweepConfig) -> list[str]:
    """What is said of the weights; the first sentence says that the data are small."""
    return describe_validation(sweep, load_split(sweep.experiment))[1:]


def write_weights(path: Path, sweep: SweepConfig, seen: list[ImageRecord] | None) -> Path:
    """A checkpoint that was trained on these images."""
    network = build_seeded_network(sweep.experiment.model, 4, seed=0)
    images = None if seen is None else torch.from_numpy(image_fingerprints(seen))
    save_checkpoint(path, Checkpoint({}, 1, [1, 2, 3, 4], [], network.state_dict(), {}, images=images))
    return path


def test_weights_that_have_seen_all_identities_end_the_sweep_before_its_first_trial(
    tmp_path: Path, data: Path, records: tuple[ImageRecord, ...]
) -> None:
    whole = write_weights(tmp_path / "whole.pth", sweep_of(tmp_path, data, None), list(records))
    strip_checkpoint(whole, tmp_path / "stripped.pth")
    for name in ("whole.pth", "stripped.pth"):
        sweep = sweep_of(tmp_path, data, tmp_path / name)
        with pytest.raises(InputError) as error:
            run_preflight(with_unseen_holdouts(sweep), STAGES)
        count = len({record.identity for record in records})
        assert f"trained on images of {count} of the {count} training identities" in str(error.value)
        assert "add identities that the weights have never seen" in str(error.value)


def test_splits_are_drawn_from_the_identities_that_the_weights_have_never_seen(
    tmp_path: Path, data: Path, records: tuple[ImageRecord, ...]
) -> None:
    identities = sorted({record.identity for record in records})
    first_half = set(identities[: len(identities) // 2])
    seen = [record for record in records if record.identity in first_half][::2]  # one image of an identity is enough
    weights = write_weights(tmp_path / "half.pth", sweep_of(tmp_path, data, None), seen)
    sweep = with_unseen_holdouts(sweep_of(tmp_path, data, weights))
    assert sweep.experiment.dataset.validation_unseen_by == (str(weights),)
    assert plain_values(with_unseen_holdouts(sweep).experiment) == plain_values(sweep.experiment)
    seen_identities = {record.identity for record in seen}
    held_out = []
    for seed in range(4):
        split = load_split(with_parameters(sweep.experiment, {"dataset.validation_seed": seed}, "test"))
        held_out.append(frozenset(record.identity for record in split.query + split.gallery))
        assert not held_out[-1] & seen_identities and seen_identities <= {record.identity for record in split.train}
    assert len(set(held_out)) == 4
    warnings = run_preflight(sweep, STAGES).warnings
    sentence = f"half.pth had images of {len(seen_identities)} of the {len(identities)} training identities in training"
    assert any(sentence in warning and "drawn from the other" in warning for warning in warnings)


def test_other_data_and_weights_of_others_change_nothing(
    tmp_path: Path, data: Path, records: tuple[ImageRecord, ...]
) -> None:
    queries = list(read_image_folder(data / "query").records)
    base = sweep_of(tmp_path, data, None)
    elsewhere = write_weights(tmp_path / "elsewhere.pth", base, queries)
    sweep = sweep_of(tmp_path, data, elsewhere)
    assert with_unseen_holdouts(sweep) == sweep and described(sweep) == []
    unknown = sweep_of(tmp_path, data, write_weights(tmp_path / "others.pth", base, None))
    assert with_unseen_holdouts(unknown) == unknown
    (sentence,) = described(unknown)
    assert "it is not known whether" in sentence and "others.pth" in sentence
    assert described(base) == []


def split_folder(data: Path) -> Path:
    """The queries and the gallery of the test set under the names of a validation folder."""
    folder = data.parent / "validation"
    if not folder.exists():
        for name in ("query", "bounding_box_test"):
            shutil.copytree(data / name, folder / name)
    return folder


def test_the_folder_that_a_spec_gives_validates_search_and_repeats(tmp_path: Path, data: Path) -> None:
    folder = split_folder(data)
    sweep = sweep_of(tmp_path, data, None, validation=str(folder))
    assert sweep.experiment.dataset.validation == str(folder)
    assert run_preflight(sweep, STAGES).held_out_identities == len({r.identity for r in read(folder / "query")})
    journal = journal_with(tmp_path / "log", sweep, [("finished", 0.4), ("finished", 0.5)])
    source = next(confirm_sources(sweep, journal, RepeatLimit(journal)))
    queries, seeds = set(), set()
    for parameters in source.runs.values():
        experiment = with_parameters(sweep.experiment, parameters, "repeat")
        split = load_split(experiment)
        queries.add(split.query)
        seeds.add(experiment.train.seed)
        assert len(split.train) == len(read(data / "bounding_box_train"))
    assert queries == {read(folder / "query")} and len(seeds) == 3


def test_weights_that_have_seen_the_given_folder_end_the_sweep(tmp_path: Path, data: Path) -> None:
    folder = split_folder(data)
    weights = write_weights(tmp_path / "seen.pth", sweep_of(tmp_path, data, None), list(read(folder / "query")))
    sweep = sweep_of(tmp_path, data, weights, validation=str(folder))
    with pytest.raises(InputError, match="seen.pth was trained on images of .* identities of dataset.validation = "):
        with_unseen_holdouts(sweep)


def test_the_test_set_cannot_validate_a_sweep(tmp_path: Path, data: Path) -> None:
    folder = split_folder(data)
    tests = {"query_dataset_dir": str(folder / "query"), "test_dataset_dir": str(folder / "bounding_box_test")}
    with pytest.raises(InputError, match="is the test set, by which a sweep may decide nothing"):
        run_preflight(sweep_of(tmp_path, data, None, validation=str(folder), **tests), STAGES)


def test_words_become_a_validation_split_and_are_named(tmp_path: Path, data: Path) -> None:
    for word in ("test", "none"):
        sweep = sweep_of(tmp_path, data, None, validation=word)
        assert sweep.experiment.dataset.validation == "holdout"
        assert any(note.startswith(f"dataset.validation = {word}: a sweep decides by") for note in sweep.notes)


def test_lists_validate_as_they_are(tmp_path: Path, data: Path) -> None:
    drawn = sweep_of(tmp_path, data, None, validation_fraction=0.3).experiment
    write_split_lists(drawn, tmp_path / "lists")
    sweep = sweep_of(tmp_path, data, None, validation=str(tmp_path / "lists"))
    assert run_preflight(sweep, STAGES).held_out_identities == load_split(drawn).held_out
    assert load_split(sweep.experiment).query == load_split(drawn).query


def test_a_smoke_test_has_a_few_of_the_given_images(tmp_path: Path, data: Path) -> None:
    write_split_lists(sweep_of(tmp_path, data, None).experiment, tmp_path / "lists")
    for given in (split_folder(data), tmp_path / "lists"):
        sweep = sweep_of(tmp_path, data, None, validation=str(given))
        folder = tmp_path / "small" / given.name
        folder.mkdir(parents=True)
        split = load_split(make_small_sweep(sweep, folder, with_tests=False).experiment)
        split.require_rankable()
        assert len(split.query) < len(load_split(sweep.experiment).query)
