from pathlib import Path

import numpy as np
import pytest

from reid_tune.errors import InputError
from reid_tune.training.data import (
    evaluation_images,
    evaluation_records,
    interpolation,
    shared_identities,
    split_records,
    training_images,
    validates_on_test,
)

from .conftest import Build, draw


def test_no_validation_keeps_every_identity(build: Build) -> None:
    split = split_records(build(dataset__validation="none"))
    assert (len(split.train), split.query, split.gallery) == (72, (), ())


def test_a_hold_out_takes_whole_identities(build: Build) -> None:
    split = split_records(build(dataset__validation="holdout"))
    held = {record.identity for record in split.query + split.gallery}
    trained = {record.identity for record in split.train}
    assert held and not held & trained and held | trained == set(range(1, 13))
    assert len(split.train) + len(split.query) + len(split.gallery) == 72
    other = split_records(build(dataset__validation="holdout", dataset__validation_seed=1))
    assert {record.identity for record in other.train} != trained


def test_test_takes_the_test_folders(build: Build, data: Path) -> None:
    folders = {"dataset__test_dataset_dir": str(data / "gallery"), "dataset__query_dataset_dir": str(data / "query")}
    experiment = build(dataset__validation="test", **folders)
    split = split_records(experiment)
    assert (len(split.train), len(split.query), len(split.gallery)) == (72, 8, 12)
    assert validates_on_test(experiment)


def test_auto_takes_the_test_folders_where_both_exist(build: Build, data: Path) -> None:
    folders = {"dataset__test_dataset_dir": str(data / "gallery"), "dataset__query_dataset_dir": str(data / "query")}
    both = build(dataset__validation="auto", **folders)
    assert validates_on_test(both) and len(split_records(both).query) == 8
    for folders_of_less in (
        {},
        folders | {"dataset__query_dataset_dir": str(data / "missing")},
        {"dataset__test_dataset_dir": str(data / "gallery")},
    ):
        experiment = build(dataset__validation="auto", **folders_of_less)
        assert not validates_on_test(experiment)
        assert split_records(experiment).query == ()


def test_missing_folders_are_named(build: Build, data: Path) -> None:
    with pytest.raises(InputError, match="dataset.train_dataset_dir is not set"):
        split_records(build(dataset__train_dataset_dir=None))
    with pytest.raises(InputError, match="no folder .*nowhere"):
        split_records(build(dataset__train_dataset_dir=str(data / "nowhere")))
    with pytest.raises(InputError, match="dataset.query_dataset_dir is not set: give the folder of query images"):
        split_records(build(dataset__validation="test", dataset__test_dataset_dir=str(data / "gallery")))
    with pytest.raises(InputError, match="dataset.test_dataset_dir is not set"):
        evaluation_records(str(data / "query"), None)


def test_training_images_are_decoded_once_with_labels(build: Build) -> None:
    experiment = build()
    made = training_images(experiment, split_records(experiment).train)
    assert made.images.shape == (72, 32, 16, 3) and made.images.dtype == np.uint8
    assert made.identities == list(range(1, 13))
    assert made.labels.tolist() == [label for label in range(12) for _ in range(6)]
    assert made.sampler.steps_per_epoch == round(72 / 16)


def test_junk_is_left_out_of_the_gallery_and_distractors_stay(build: Build, data: Path, tmp_path: Path) -> None:
    gallery = draw(tmp_path / "gallery", range(101, 103), 2)
    for name in ("-1_c1_junk.png", "0000_c1_distractor.png"):
        (gallery / name).write_bytes(next(gallery.glob("0101*")).read_bytes())
    made = evaluation_images(build(), *evaluation_records(str(data / "query"), str(gallery)))
    assert made.queries == 8 and made.images.shape == (8 + 5, 32, 16, 3)
    assert sorted(made.identities[8:]) == [0, 101, 101, 102, 102]
    assert made.cameras[:2].tolist() == [1, 2]


def test_the_backbone_chooses_the_interpolation() -> None:
    assert interpolation("swin_tiny_patch4_window7_224") == "bicubic"
    assert interpolation("resnet_50") == interpolation("vit_tiny_patch16_224") == "bilinear"


def test_identities_shared_with_the_test_are_counted(build: Build, data: Path) -> None:
    train = split_records(build(dataset__validation="none")).train
    query, _ = evaluation_records(str(data / "query"), str(data / "gallery"))
    known = {record.identity for record in train}
    expected = len({record.identity for record in query if record.identity > 0 and record.identity in known})
    assert shared_identities(train, query) == expected
    assert shared_identities(train, train) == len(known)
