from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid_tune.data.image_cache.admin import list_entries
from reid_tune.data.image_cache.images import DecodedImages
from reid_tune.data.image_spec import ImageSpec
from reid_tune.data.images import decode_images
from reid_tune.data.records import ImageRecord, training_records
from reid_tune.training.data_split import (
    list_training_folders,
    load_split,
    read_evaluation_records,
)
from reid_tune.training.image_sets import load_evaluation_images, load_training_images

from .conftest import Build, build_on_folders, draw

HOLDOUT = {"dataset__validation": "holdout"}


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


def test_only_parsed_images_are_queries(build: Build, data: Path, tmp_path: Path) -> None:
    """The boundary of queries and gallery: files that are not crops, in a path that looks like a crop's name."""
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
    jitter = {"dataset__color_jitter.prob": 0.5, "dataset__color_jitter.hue": 0.3}
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


def test_weights_of_folders_and_cameras_come_from_the_spec(build: Build, tmp_path: Path) -> None:
    roots = [draw(tmp_path / name, range(1, 9), 6) for name in ("a", "b")]
    experiment = build(
        dataset__train_dataset_dir=[str(root) for root in roots],
        dataset__folder_weights=[1.0, 3.0],
        dataset__camera_aware=True,
        dataset__max_images_per_identity=24,
    )
    split = load_split(experiment)
    made = load_training_images(experiment, split.train, split.folders)
    batches = np.concatenate([made.sampler.epoch(number) for number in range(8)])
    from_b = np.array([record.path.parent == roots[1] for record in split.train])
    assert from_b[batches].mean() == pytest.approx(0.75, abs=0.01)
    cameras = np.array([record.camera for record in split.train])
    k = experiment.dataset.num_instances
    assert all(len(set(group)) == min(k, 2 if k < 3 else 3) for group in cameras[batches].reshape(-1, k))


def equal_to_decode(images: DecodedImages, records: Sequence[ImageRecord]) -> bool:
    return bool((images[:] == decode_images(records, ImageSpec(32, 16, "bilinear"))).all())


def test_every_record_has_its_own_pixels(build: Build, data: Path, tmp_path: Path) -> None:
    """Rows of whole folders: a validation split, several folders with shifted identities, a gallery without junk."""
    other = draw(tmp_path / "other", range(3, 8), 3)
    for name in ("0000_c1_nobody.png", "-1_c1_junk.png", "0004_c2_more.png"):
        Image.effect_noise((16, 32), 50).convert("RGB").save(other / name)
    experiment = build_on_folders(build, data / "train", other, **HOLDOUT)
    split = load_split(experiment)
    trained = load_training_images(experiment, split.train)
    assert equal_to_decode(trained.images, split.train)
    assert {record.path.parent for record in split.train} == {data / "train", other}
    assert [trained.identities[label] for label in trained.labels] == [record.identity for record in split.train]
    held = load_evaluation_images(experiment, split.query, split.gallery)
    assert equal_to_decode(held.images, split.query + split.gallery)

    query, gallery = read_evaluation_records(str(data / "train"), str(other))
    tested = load_evaluation_images(experiment, query, gallery)
    without_junk = [record for record in gallery if record.identity >= 0]
    assert len(without_junk) == len(gallery) - 1 and equal_to_decode(tested.images, [*query, *without_junk])


def test_all_runs_share_the_files_of_their_folders(
    build: Build, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path))
    folders = read_evaluation_records(str(data / "query"), str(data / "gallery"))
    for seed in range(3):
        experiment = build(dataset__validation_seed=seed, dataset__validation_fraction=0.3, **HOLDOUT)
        split = load_split(experiment)
        load_training_images(experiment, split.train)
        load_evaluation_images(experiment, split.query, split.gallery)
        load_evaluation_images(experiment, *folders)
    built = {Path(entry.header.folder): entry.header.images for entry in list_entries() if entry.header}
    assert built == {data / "train": 72, data / "query": 8, data / "gallery": 12}
