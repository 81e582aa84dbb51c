from pathlib import Path

import numpy as np
import pytest

from reid_tune.data.listing import Reason
from reid_tune.data.records import (
    ImageFolder,
    ImageRecord,
    class_labels,
    list_image_folder,
    read_image_folder,
    read_training_folders,
    training_records,
)
from reid_tune.errors import InputError
from reid_tune.tasks.common.embedding_files import list_images


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
        ("0001_c2_f0046182.jpg", 1, 2),
        ("0002_c002_00030600_0.jpg", 2, 2),
        ("01042_c03_0000_000_03_0303morning_0008_0.JPEG", 1042, 3),
        ("-1_c1s1_000401_03.PNG", -1, 1),
    ],
)
def test_names_that_parse(tmp_path: Path, name: str, identity: int, camera: int) -> None:
    folder = read_image_folder(touch(tmp_path / "exp7_c3", name))
    assert folder.records == (ImageRecord(tmp_path / "exp7_c3" / name, identity, camera),)
    assert folder.left_out == {}


@pytest.mark.parametrize(
    "name",
    [
        "person.jpg",
        "x0002_c1.jpg",
        "0002-c1.jpg",
        "_c1.png",
        "0002_cam1.jpg",
        "--1_c1.jpg",
        f"{10**19}_c1.jpg",
        f"1_c{10**19}.jpg",
    ],
)
def test_names_that_do_not_parse_are_listed_or_refused(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "0001_c1.jpg", name)
    folder = read_image_folder(tmp_path)
    assert [record.identity for record in folder.records] == [1]
    assert folder.left_out == {Reason.NAME: (name,)}
    with pytest.raises(InputError, match=rf"^dataset.strict: .*1 whose name does not parse, '{name}'"):
        read_image_folder(tmp_path, strict=True)


def test_files_that_cannot_be_images_are_no_error(tmp_path: Path) -> None:
    touch(tmp_path, "0001_c1.jpg", "Thumbs.db", ".0003_c1.jpg", "0004_c1.txt")
    touch(tmp_path / "notes", "a.txt")
    folder = read_image_folder(tmp_path, strict=True)
    assert [record.path.name for record in folder.records] == ["0001_c1.jpg"]
    assert folder.left_out == {
        Reason.SUBFOLDER: ("notes",),
        Reason.SUFFIX: ("0004_c1.txt",),
        Reason.SYSTEM: (".0003_c1.jpg", "Thumbs.db"),
    }


def test_a_copy_of_a_folder_at_s3_has_one_account_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sub-folders and hidden files of the copy are not those of the address."""
    touch(tmp_path, "0001_c1.jpg", ".complete", "odd.jpg", "a.txt")
    touch(tmp_path / "more", "0002_c1.jpg")
    monkeypatch.setattr("reid_tune.data.records.ensure_local_folder", lambda path: tmp_path)
    url = "s3://bucket/crops"
    folder = read_image_folder(url)
    assert folder.left_out == {Reason.NAME: ("odd.jpg",), Reason.SUFFIX: ("a.txt",)}
    assert list_image_folder(url).left_out == {Reason.SUFFIX: ("a.txt",)}
    images, account = list_images(url, "gallery")
    assert [image.path for image in images] == [tmp_path / "0001_c1.jpg", tmp_path / "odd.jpg"]
    assert (account.files, account.left_out) == (3, {Reason.SUFFIX: 1})
    (tmp_path / "odd.jpg").unlink()
    assert len(list_images(url, "gallery", strict=True)[0]) == len(read_image_folder(url, strict=True).records) == 1


def test_order_and_training_records(tmp_path: Path) -> None:
    touch(tmp_path, "0009_c1.jpg", "-1_c1_b.jpg", "-1_c1_a.jpg", "0000_c2.jpg", "0002_c2.jpg", "0009_c2.jpg")
    folder = read_image_folder(str(tmp_path))
    names = [record.path.name for record in folder.records]
    assert names == sorted(names) and len(names) == 6
    assert [record.identity for record in training_records(folder)] == [2, 9, 9]


def test_labels_are_dense_and_ordered() -> None:
    records = [ImageRecord(Path("a"), identity, 1) for identity in (30, 7, 30, 9)]
    values, identities = class_labels(records)
    assert identities == [7, 9, 30]
    assert values.dtype == np.int64 and values.tolist() == [2, 0, 2, 1]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        read_image_folder(tmp_path / "missing")
    with pytest.raises(InputError, match="is a file"):
        read_image_folder(touch(tmp_path, "file") / "file")
    with pytest.raises(InputError, match="empty"):
        read_image_folder(touch(tmp_path / "empty"))
    with pytest.raises(InputError, match="sub-folders without images.*IDENTITY_cCAMERA"):
        read_image_folder(touch(tmp_path / "root" / "bounding_box_train").parent)
    with pytest.raises(InputError, match="'me.jpg'"):
        read_image_folder(touch(tmp_path / "odd", "Thumbs.db", "me.jpg"))


def test_training_needs_identities() -> None:
    folder = ImageFolder(
        Path("market"), (ImageRecord(Path("-1_c1.jpg"), -1, 1), ImageRecord(Path("0000_c1.jpg"), 0, 1))
    )
    with pytest.raises(InputError, match="market has only junk"):
        training_records(folder)
    with pytest.raises(InputError, match="market has only junk"):
        training_records(ImageFolder(Path("duke"), (ImageRecord(Path("0001_c1.jpg"), 1, 1),)), folder)


def moved_apart(folders: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """(identity, camera) of all images, each new pair of folder and number given the next free place by hand."""
    result: list[tuple[int, int]] = []
    for folder in folders:
        identities = [0, *(identity for identity, _ in result)]
        cameras = [0, *(camera for _, camera in result)]
        for identity, camera in folder:
            people = identity + max(identities) if identity > 0 else identity
            result.append((people, camera + max(cameras)))
    return result


def test_several_folders_are_kept_apart(tmp_path: Path) -> None:
    market = touch(tmp_path / "market", "-1_c6s1_1.jpg", "0000_c2s1_1.jpg", "0002_c1s1_1.jpg", "0007_c2s1_1.jpg")
    duke = touch(tmp_path / "duke", "0002_c8_f1.jpg", "0003_c1_f1.jpg", "0000_c1_f1.jpg", "odd.jpg")
    veri = touch(tmp_path / "veri", "0002_c020_1_0.jpg", "0002_c003_1_0.jpg")
    folders = read_training_folders([market, str(duke), veri])
    found = [(record.identity, record.camera) for folder in folders for record in folder.records]
    alone = [[(r.identity, r.camera) for r in read_image_folder(path).records] for path in (market, duke, veri)]
    assert found == moved_apart(alone)
    assert found == [(-1, 6), (0, 2), (2, 1), (7, 2), (0, 7), (9, 14), (10, 7), (12, 17), (12, 34)]
    assert [folder.path for folder in folders] == [market, duke, veri]
    assert [folder.left_out for folder in folders] == [{}, {Reason.NAME: ("odd.jpg",)}, {}]
    records = training_records(*folders)
    assert [record.identity for record in records] == [2, 7, 9, 10, 12, 12]
    assert [record.identity - record.identity_offset for record in records] == [2, 7, 2, 3, 2, 2]


def test_one_folder_keeps_its_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "0002_c8_f1.jpg", "0003_c1_f1.jpg")
    assert read_training_folders([tmp_path]) == (read_image_folder(tmp_path),)


def test_a_folder_given_twice_is_refused(tmp_path: Path) -> None:
    folder = touch(tmp_path / "market", "0001_c1.jpg")
    with pytest.raises(InputError, match=r"names the folder .*market twice, "):
        read_training_folders([folder, folder])
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match=r"the folder .*link twice, once as .*market, "):
        read_training_folders([folder, tmp_path / "link"])


def test_strict_holds_for_every_folder(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "a", "0001_c1.jpg"), touch(tmp_path / "b", "0001_c1.jpg", "odd.jpg")
    assert len(read_training_folders([first, second])) == 2
    with pytest.raises(InputError, match=r"/b has files .*'odd.jpg'"):
        read_training_folders([first, second], strict=True)
