from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid_tune.config.experiment import Experiment
from reid_tune.data.image_cache.admin import list_entries
from reid_tune.data.image_cache.images import DecodedImages
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import decode_images
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
from reid_tune.training.image_sets import load_evaluation_images, load_training_images

from .conftest import Build, draw

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


def test_training_images_are_decoded_once_with_labels(build: Build) -> None:
    experiment = build()
    made = load_training_images(experiment, load_split(experiment).train)
    assert made.images.shape == made.images[:].shape == (72, 32, 16, 3) and made.images[:].dtype == np.uint8
    assert made.identities == list(range(1, 13))
    assert made.labels.tolist() == [label for label in range(12) for _ in range(6)]
    assert made.sampler.steps_per_epoch == round(72 / 16)


def test_junk_is_left_out_of_the_gallery_and_distractors_stay(build: Build, data: Path, tmp_path: Path) -> None:
    gallery = draw(tmp_path / "gallery", range(101, 103), 2)
    for name in ("-1_c1_junk.png", "0000_c1_distractor.png"):
        (gallery / name).write_bytes(next(gallery.glob("0101*")).read_bytes())
    made = load_evaluation_images(build(), *read_evaluation_records(str(data / "query"), str(gallery)))
    assert made.queries == 8 and made.images.shape == (8 + 5, 32, 16, 3)
    assert sorted(made.identities[8:]) == [0, 101, 101, 102, 102]
    assert made.cameras[:2].tolist() == [1, 2]


def test_identities_shared_with_the_test_are_counted(build: Build, data: Path) -> None:
    train = load_split(build(dataset__validation="none")).train
    query, _ = read_evaluation_records(str(data / "query"), str(data / "gallery"))
    known = {record.identity for record in train}
    expected = len({record.identity for record in query if record.identity > 0 and record.identity in known})
    assert count_shared_identities(train, query) == expected
    assert count_shared_identities(train, train) == len(known)


def several(build: Build, *folders: Path, **values: object) -> Experiment:
    return build(dataset__train_dataset_dir=[str(folder) for folder in folders], **values)


def test_several_training_folders_become_one_set_of_people(build: Build, data: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", range(3, 8), 3)
    (other / "0000_c1_nobody.png").write_bytes(next(other.glob("0003*")).read_bytes())
    experiment = several(build, data / "train", other)
    records = training_records(*list_training_folders(experiment))
    assert len(records) == 72 + 15 and [folder.distractors for folder in list_training_folders(experiment)] == [0, 1]
    assert {record.identity for record in records[72:]} == set(range(15, 20))
    assert {record.camera for record in records[72:]} == {4, 5, 6}
    assert load_split(experiment).train == records
    made = load_training_images(experiment, records)
    assert made.identities == [*range(1, 13), *range(15, 20)] and len(made.images) == 87
    held = {record.identity for record in load_split(several(build, data / "train", other, **HOLDOUT)).query}
    assert held and held <= set(made.identities)


def test_strict_refuses_odd_names_in_every_folder(build: Build, data: Path, tmp_path: Path) -> None:
    odd = draw(tmp_path / "odd", range(201, 203), 2)
    (odd / "person.png").write_bytes(b"")
    for experiment in (
        several(build, data / "train", odd),
        build(dataset__test_dataset_dir=str(odd), dataset__query_dataset_dir=str(odd), dataset__validation="test"),
    ):
        assert load_split(experiment).train
        strict = experiment.model_copy(update={"dataset": experiment.dataset.model_copy(update={"strict": True})})
        with pytest.raises(InputError, match="'person.png'"):
            load_split(strict)
    with pytest.raises(InputError, match="names the folder .*train twice"):
        load_split(several(build, data / "train", data / "train"))


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
    """Of two folders whose numbers overlap by chance only the one beside the test knows the test's people."""
    train = draw(tmp_path / "site" / "train", range(3, 8), 2)
    query = [ImageRecord(tmp_path / "site" / "query" / f"{i:04d}_c1.png", i, 1) for i in (0, 1, 2, 3, 15, 20)]
    for folders in ((data / "train", train), (train, data / "train")):
        assert count_shared_identities(training_records(*list_training_folders(several(build, *folders))), query) == 1
    assert count_shared_identities(training_records(*list_training_folders(several(build, data / "train"))), query) == 3


def test_only_parsed_images_are_queries(build: Build, data: Path, tmp_path: Path) -> None:
    """The boundary of queries and gallery: files that are no crops, in a path that looks like one."""
    root = tmp_path / "0099_c9" / "exp7_c3"
    query, gallery = draw(root / "query", range(101, 103), 2), draw(root / "gallery", range(101, 103), 3)
    content = next(query.glob("0101*")).read_bytes()
    for name in ("Thumbs.db", ".0101_c1.png", "readme.txt", "cover.png"):
        (query / name).write_bytes(content)
    (query / "0101_c1_folder.png").mkdir()
    Image.open(next(query.glob("0102*"))).save(query / "0102_c7_upper.JPG", "JPEG")
    made = load_evaluation_images(build(), *read_evaluation_records(str(query), str(gallery)))
    assert made.queries == 5 and len(made.images) == 5 + 6
    assert made.identities.tolist() == [101, 101, 102, 102, 102, *[101] * 3, *[102] * 3]
    assert made.cameras.tolist() == [1, 2, 1, 2, 7, *[1, 2, 3] * 2]


def test_grey_and_jitter_come_from_the_spec(build: Build, data: Path) -> None:
    jitter = {"dataset__color_jitter.prob": 0.5, "dataset__color_jitter.hue": 0.1}
    experiment = build(model__input_channels=1, **jitter)
    made = load_training_images(experiment, training_records(*list_training_folders(experiment)))
    pixels = made.images[:]
    assert pixels.shape == (72, 32, 16, 3) and (pixels[..., :1] == pixels).all()
    assert made.augmentation.jitter == experiment.dataset.color_jitter
    batch = made.augmentation.apply(torch.from_numpy(made.images[:16]), made.augmentation.draw(0, 0, 0, 16))
    assert batch.shape == (16, 1, 32, 16)
    folders = read_evaluation_records(str(data / "query"), str(data / "gallery"))
    tested = load_evaluation_images(experiment, *folders).images[:]
    assert (tested[..., :1] == tested).all()
    in_colour = load_evaluation_images(build(), *folders).images[:]
    assert (in_colour[..., :1] != in_colour).any()


def equal_to_decode(images: DecodedImages, records: Sequence[ImageRecord]) -> bool:
    return bool((images[:] == decode_images(records, ImageSpec(32, 16, "bilinear"))).all())


def test_every_record_has_its_own_pixels(build: Build, data: Path, tmp_path: Path) -> None:
    """Rows of whole folders: a hold-out, several folders with moved identities, a gallery without its junk."""
    other = draw(tmp_path / "other", range(3, 8), 3)
    for name in ("0000_c1_nobody.png", "-1_c1_junk.png", "0004_c2_more.png"):
        Image.effect_noise((16, 32), 50).convert("RGB").save(other / name)
    experiment = several(build, data / "train", other, **HOLDOUT)
    split = load_split(experiment)
    trained = load_training_images(experiment, split.train)
    assert equal_to_decode(trained.images, split.train)
    assert {record.path.parent for record in split.train} == {data / "train", other}
    assert [trained.identities[label] for label in trained.labels] == [record.identity for record in split.train]
    held = load_evaluation_images(experiment, split.query, split.gallery)
    assert equal_to_decode(held.images, split.query + split.gallery)

    query, gallery = read_evaluation_records(str(data / "query"), str(other))
    tested = load_evaluation_images(experiment, query, gallery)
    known = [record for record in gallery if record.identity >= 0]
    assert len(known) == len(gallery) - 1 and equal_to_decode(tested.images, [*query, *known])


def test_all_runs_share_the_files_of_their_folders(
    build: Build, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path))
    folders = read_evaluation_records(str(data / "query"), str(data / "gallery"))
    for seed in range(3):
        experiment = build(dataset__validation_seed=seed, **HOLDOUT)
        split = load_split(experiment)
        load_training_images(experiment, split.train)
        load_evaluation_images(experiment, split.query, split.gallery)
        load_evaluation_images(experiment, *folders)
    built = {Path(entry.header.folder): entry.header.images for entry in list_entries() if entry.header}
    assert built == {data / "train": 72, data / "query": 8, data / "gallery": 12}
