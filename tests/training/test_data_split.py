from pathlib import Path

import pytest

from reid_tune.data.records import ImageRecord, training_records
from reid_tune.data.split_files import write_split
from reid_tune.errors import InputError
from reid_tune.training.data_split import (
    count_shared_identities,
    has_validation_split,
    list_training_folders,
    load_split,
    read_evaluation_records,
    validates_on_test_set,
)
from reid_tune.training.image_sets import load_training_images

from .conftest import Build, build_on_folders, draw

HOLDOUT = {"dataset__validation": "holdout"}


def test_no_validation_keeps_every_identity(build: Build) -> None:
    split = load_split(build(dataset__validation="none"))
    assert (len(split.train), split.query, split.gallery) == (72, (), ())


def test_a_hold_out_takes_whole_identities(build: Build) -> None:
    split = load_split(build(dataset__validation="holdout"))
    held = {record.identity for record in split.query + split.gallery}
    trained = {record.identity for record in split.train}
    assert held and not held & trained and held | trained == set(range(1, 13))
    assert len(split.train) + len(split.query) + len(split.gallery) == 72
    other = load_split(build(dataset__validation="holdout", dataset__validation_seed=1))
    assert {record.identity for record in other.train} != trained


def test_test_takes_the_test_folders(build: Build, data: Path) -> None:
    folders = {"dataset__test_dataset_dir": str(data / "gallery"), "dataset__query_dataset_dir": str(data / "query")}
    experiment = build(dataset__validation="test", **folders)
    split = load_split(experiment)
    assert (len(split.train), len(split.query), len(split.gallery)) == (72, 8, 12)
    assert validates_on_test_set(experiment)


def test_auto_takes_the_test_folders_where_both_exist(build: Build, data: Path) -> None:
    folders = {"dataset__test_dataset_dir": str(data / "gallery"), "dataset__query_dataset_dir": str(data / "query")}
    both = build(dataset__validation="auto", **folders)
    assert validates_on_test_set(both) and len(load_split(both).query) == 8
    for folders_of_less in (
        {},
        folders | {"dataset__query_dataset_dir": str(data / "missing")},
        {"dataset__test_dataset_dir": str(data / "gallery")},
    ):
        experiment = build(dataset__validation="auto", **folders_of_less)
        assert not validates_on_test_set(experiment)
        assert load_split(experiment).query == ()


def test_missing_folders_are_named(build: Build, data: Path) -> None:
    with pytest.raises(InputError, match="dataset.train_dataset_dir is not set"):
        load_split(build(dataset__train_dataset_dir=None))
    with pytest.raises(InputError, match="no folder .*nowhere"):
        load_split(build(dataset__train_dataset_dir=str(data / "nowhere")))
    with pytest.raises(InputError, match="dataset.query_dataset_dir is not set: give the folder of query images"):
        load_split(build(dataset__validation="test", dataset__test_dataset_dir=str(data / "gallery")))
    with pytest.raises(InputError, match="dataset.test_dataset_dir is not set"):
        read_evaluation_records(str(data / "query"), None)


def test_identities_shared_with_the_test_are_counted(build: Build, data: Path) -> None:
    train = load_split(build(dataset__validation="none")).train
    query, _ = read_evaluation_records(str(data / "query"), str(data / "gallery"))
    train_identities = {record.identity for record in train}
    expected = len({record.identity for record in query if record.identity > 0 and record.identity in train_identities})
    assert count_shared_identities(train, query) == expected
    assert count_shared_identities(train, train) == len(train_identities)


def test_several_training_folders_become_one_set_of_people(build: Build, data: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", range(3, 8), 3)
    (other / "0000_c1_nobody.png").write_bytes(next(other.glob("0003*")).read_bytes())
    experiment = build_on_folders(build, data / "train", other)
    records = training_records(*list_training_folders(experiment))
    assert len(records) == 72 + 15
    assert {record.identity for record in records[72:]} == set(range(15, 20))
    assert {record.camera for record in records[72:]} == {4, 5, 6}
    assert load_split(experiment).train == records
    made = load_training_images(experiment, records)
    assert made.identities == [*range(1, 13), *range(15, 20)] and len(made.images) == 87
    held = {record.identity for record in load_split(build_on_folders(build, data / "train", other, **HOLDOUT)).query}
    assert held and held <= set(made.identities)


def test_strict_refuses_odd_names_in_every_folder(build: Build, data: Path, tmp_path: Path) -> None:
    odd = draw(tmp_path / "odd", range(201, 203), 2)
    (odd / "person.png").write_bytes(b"")
    for experiment in (
        build_on_folders(build, data / "train", odd),
        build(dataset__test_dataset_dir=str(odd), dataset__query_dataset_dir=str(odd), dataset__validation="test"),
    ):
        assert load_split(experiment).train
        strict = experiment.model_copy(update={"dataset": experiment.dataset.model_copy(update={"strict": True})})
        with pytest.raises(InputError, match="'person.png'"):
            load_split(strict)
    with pytest.raises(InputError, match="names the folder .*train twice"):
        load_split(build_on_folders(build, data / "train", data / "train"))


def test_validation_takes_a_folder_with_query_and_gallery(build: Build, tmp_path: Path) -> None:
    draw(tmp_path / "site" / "query", range(5, 9), 2)
    draw(tmp_path / "site" / "bounding_box_test", range(5, 10), 3)
    experiment = build(dataset__validation=str(tmp_path / "site"))
    split = load_split(experiment)
    assert (len(split.train), len(split.query), len(split.gallery)) == (72, 8, 15)
    assert not validates_on_test_set(experiment)
    assert count_shared_identities(split.train, split.query) == 4


def test_a_validation_folder_that_is_the_test_is_the_test(build: Build, data: Path, tmp_path: Path) -> None:
    draw(tmp_path / "query", range(5, 9), 2)
    draw(tmp_path / "bounding_box_test", range(5, 10), 3)
    folders = {
        "dataset__test_dataset_dir": str(tmp_path / "bounding_box_test"),
        "dataset__query_dataset_dir": str(data / "query"),
    }
    assert validates_on_test_set(build(dataset__validation=str(tmp_path), **folders))
    assert not validates_on_test_set(build(dataset__validation=str(tmp_path)))


def test_a_wrong_word_for_validation_is_explained(build: Build, data: Path, tmp_path: Path) -> None:
    for word in ("hold-out", "Test"):
        with pytest.raises(InputError, match=f"'{word}'.*no folder {word}: .*auto, none, test, holdout, or a folder"):
            load_split(build(dataset__validation=word))
    (tmp_path / "query").mkdir()
    forms = r"that holds query and bounding_box_test, or the lists train.txt, query.txt, gallery.txt\."
    with pytest.raises(InputError, match=f"no folder .*/bounding_box_test: .*{forms}"):
        load_split(build(dataset__validation=str(tmp_path)))
    (tmp_path / "query").rmdir()
    (tmp_path / "query.txt").touch()
    with pytest.raises(InputError, match=r"there is no .*/train.txt; a split is a folder with train.txt, query.txt"):
        load_split(build(dataset__validation=str(tmp_path)))


def test_validation_takes_written_lists(build: Build, data: Path, tmp_path: Path) -> None:
    drawn = build(dataset__validation="holdout", dataset__validation_seed=4)
    write_split(tmp_path, load_split(drawn), list_training_folders(drawn))
    listed = build(dataset__validation=str(tmp_path))
    assert load_split(listed) == load_split(drawn)
    assert has_validation_split(listed) and has_validation_split(drawn) and not validates_on_test_set(listed)
    draw(tmp_path / "query", range(5, 9), 2)
    draw(tmp_path / "bounding_box_test", range(5, 10), 3)
    assert not has_validation_split(listed) and len(load_split(listed).query) == 8, "images go before lists"
    assert not any(has_validation_split(build(dataset__validation=word)) for word in ("auto", "none", "test"))


def test_shared_identities_are_looked_for_in_the_data_set_of_the_test(build: Build, data: Path, tmp_path: Path) -> None:
    """Of two folders whose identities overlap by chance only the one in the test's data set counts."""
    train = draw(tmp_path / "site" / "train", range(3, 8), 2)
    query = [ImageRecord(tmp_path / "site" / "query" / f"{i:04d}_c1.png", i, 1) for i in (0, 1, 2, 3, 15, 20)]
    for folders in ((data / "train", train), (train, data / "train")):
        records = training_records(*list_training_folders(build_on_folders(build, *folders)))
        assert count_shared_identities(records, query) == 1
    records = training_records(*list_training_folders(build_on_folders(build, data / "train")))
    assert count_shared_identities(records, query) == 3
