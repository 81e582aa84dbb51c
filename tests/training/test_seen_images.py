"""Which images a checkpoint has seen: those of its training and of the weights with which it began."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, strip_checkpoint
from reid_tune.data.fingerprint import image_fingerprints
from reid_tune.data.records import ImageRecord, read_image_folder
from reid_tune.training.data_split import load_split
from reid_tune.training.loop import train
from reid_tune.training.seen_images import find_seen_identities
from reid_tune.training.weights_file import weights_images

from .conftest import Build, Recorder, draw

KEY = "a key"


def seen(file: Path, *records: ImageRecord) -> set[int]:
    return find_seen_identities(records, [str(file)], None)


@pytest.fixture(scope="module")
def checkpoint(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiment = build(dataset__validation="holdout", train__num_epochs=1)
    return train(experiment, Recorder(), tmp_path_factory.mktemp("first")).checkpoint


def test_a_checkpoint_has_seen_its_training_images_and_not_its_validation_split(build: Build, checkpoint: Path) -> None:
    split = load_split(build(dataset__validation="holdout"))
    assert seen(checkpoint, *split.train) == {record.identity for record in split.train}
    assert seen(checkpoint, *split.query, *split.gallery) == set()


def test_weights_have_seen_what_those_before_them_have_seen(build: Build, checkpoint: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", range(50, 54), 6)
    values = {"dataset__train_dataset_dir": str(other), "train__num_epochs": 1}
    values |= {"model__pretrained_model_path": str(checkpoint), "model__pretrain_choice": "self"}
    tuned = train(build(**values), Recorder(), tmp_path / "tuned").checkpoint
    split = load_split(build(dataset__validation="holdout"))
    records = [*split.train, *split.query, *read_image_folder(other).records]
    assert seen(tuned, *records) == {record.identity for record in split.train} | {50, 51, 52, 53}
    longer = train(build(**values | {"train__num_epochs": 2}), Recorder(), tmp_path / "tuned").checkpoint
    assert torch.equal(load_checkpoint(longer).images, load_checkpoint(tuned).images)  # type: ignore[arg-type]


def test_names_and_folders_of_images_do_not_matter(checkpoint: Path, build: Build, tmp_path: Path) -> None:
    record = load_split(build(dataset__validation="holdout")).train[0]
    copy = tmp_path / "0777_c1.png"
    shutil.copy(record.path, copy)
    assert seen(checkpoint, ImageRecord(copy, 777, 1)) == {777}
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert seen(checkpoint, ImageRecord(copy, 777, 1)) == set()


def test_stripped_and_encrypted_copies_have_seen_the_same(checkpoint: Path, tmp_path: Path) -> None:
    images = weights_images(str(checkpoint), None)
    assert images is not None and len(images) == len(set(images.tolist())) > 0
    strip_checkpoint(checkpoint, tmp_path / "stripped.pth")
    save_checkpoint(tmp_path / "encrypted.pth", load_checkpoint(checkpoint), KEY)
    for name in ("stripped.pth", "encrypted.pth"):
        assert torch.equal(weights_images(str(tmp_path / name), KEY), images)  # type: ignore[arg-type]


def test_weights_of_others_do_not_say_what_they_have_seen(tmp_path: Path, build: Build) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}}, tmp_path / "others.pth")
    save_checkpoint(tmp_path / "old.pth", Checkpoint({}, 1, [1], [], {}, {}))
    for name in ("others.pth", "old.pth"):
        assert weights_images(str(tmp_path / name), None) is None
        assert seen(tmp_path / name, *load_split(build()).train) == set()


def test_a_fingerprint_is_the_begin_of_a_hash_of_the_bytes(data: Path) -> None:
    from hashlib import blake2b

    records = read_image_folder(data / "query").records
    reference = [blake2b(record.path.read_bytes(), digest_size=16).digest()[:8] for record in records]
    np.testing.assert_array_equal(image_fingerprints(records), np.frombuffer(b"".join(reference), ">i8"))
