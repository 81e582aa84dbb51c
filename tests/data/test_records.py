from pathlib import Path

import numpy as np
import pytest

from reid_tune.data.records import Folder, Record, labels, read_folder, training_records
from reid_tune.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("name", "identity", "camera"),
    [
        ("0002_c1s1_000451_03.jpg", 2, 1),
        ("-1_c3s2_000001_00.jpg", -1, 3),
        ("0000_c6s1_000001_00.jpg", 0, 6),
        ("0007_c15s1_x.JPG", 7, 15),
        ("12_c2.jpeg", 12, 2),
        ("1501_c004_f0001.Png", 1501, 4),
    ],
)
def test_names_that_parse(tmp_path: Path, name: str, identity: int, camera: int) -> None:
    folder = read_folder(touch(tmp_path / "exp7_c3", name))
    assert folder.records == (Record(tmp_path / "exp7_c3" / name, identity, camera),)
    assert folder.left_out == ()


@pytest.mark.parametrize(
    "name", ["person.jpg", "x0002_c1.jpg", "0002-c1.jpg", "_c1.png", "0002_cam1.jpg", "--1_c1.jpg"]
)
def test_names_that_do_not_parse_are_listed_or_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "0001_c1.jpg", name)
    folder = read_folder(tmp_path)
    assert [record.identity for record in folder.records] == [1]
    assert folder.left_out == (name,)
    with pytest.raises(InputError, match=rf"1 image.*'{name}'"):
        read_folder(tmp_path, strict=True)


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "0001_c1.jpg", "Thumbs.db", ".0003_c1.jpg", "0004_c1.txt", "0005_c1")
    touch(tmp_path / "0006_c1.jpg", "0007_c1.jpg")
    folder = read_folder(tmp_path, strict=True)
    assert [record.path.name for record in folder.records] == ["0001_c1.jpg"]
    assert folder.left_out == ()


def test_order_counts_and_training_records(tmp_path: Path) -> None:
    touch(tmp_path, "0009_c1.jpg", "-1_c1_b.jpg", "-1_c1_a.jpg", "0000_c2.jpg", "0002_c2.jpg", "0009_c2.jpg")
    folder = read_folder(str(tmp_path))
    names = [record.path.name for record in folder.records]
    assert names == sorted(names) and len(names) == 6
    assert (folder.junk, folder.distractors) == (2, 1)
    assert [record.identity for record in training_records(folder)] == [2, 9, 9]


def test_labels_are_dense_and_ordered() -> None:
    records = [Record(Path("a"), identity, 1) for identity in (30, 7, 30, 9)]
    values, identities = labels(records)
    assert identities == [7, 9, 30]
    assert values.dtype == np.int64 and values.tolist() == [2, 0, 2, 1]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        read_folder(tmp_path / "missing")
    with pytest.raises(InputError, match="is a file"):
        read_folder(touch(tmp_path, "file") / "file")
    with pytest.raises(InputError, match="empty"):
        read_folder(touch(tmp_path / "empty"))
    with pytest.raises(InputError, match="'bounding_box_train/'.*IDENTITY_cCAMERA"):
        read_folder(touch(tmp_path / "root" / "bounding_box_train").parent)
    with pytest.raises(InputError, match="'me.jpg'"):
        read_folder(touch(tmp_path / "odd", "Thumbs.db", "me.jpg"))


def test_training_needs_identities() -> None:
    folder = Folder(Path("market"), (Record(Path("-1_c1.jpg"), -1, 1), Record(Path("0000_c1.jpg"), 0, 1)), ())
    with pytest.raises(InputError, match="market holds only junk"):
        training_records(folder)
