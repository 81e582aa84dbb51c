"""MSMT17's layout as Market-1501 folders."""

import os
from pathlib import Path

import pytest

from reid_tune.data.records import read_image_folder
from reid_tune.errors import InfrastructureError, InputError
from reid_tune.tasks.convert import ConvertResult, convert_msmt17

# List, folder, (label, track, camera) of each image.
LISTS = {
    "train": ("train", [(0, 0, 1), (0, 1, 15), (2, 0, 3)]),
    "val": ("train", [(1, 0, 4), (1, 1, 2)]),
    "query": ("test", [(0, 0, 7), (1, 0, 8)]),
    "gallery": ("test", [(0, 1, 9), (0, 2, 7), (3, 0, 11)]),
}


def msmt17(root: Path, folders: dict[str, str] | None = None) -> Path:
    for name, (part, entries) in LISTS.items():
        lines = []
        for label, track, camera in entries:
            path = f"{label:04d}/{label:04d}_{track:03d}_{camera:02d}_0303morning_0008_{track}.jpg"
            file = root / (folders or {}).get(part, part) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"{part} {path}".encode())
            lines.append(f"{path} {label}")
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n\n")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def spoil(root: Path, name: str, number: int, line: str) -> None:
    lines = (root / f"list_{name}.txt").read_text().splitlines()
    lines[number - 1] = line
    (root / f"list_{name}.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("folders", [None, {"train": "mask_train_v2", "test": "mask_test_v2"}])
def test_folders_names_and_contents(tmp_path: Path, folders: dict[str, str] | None) -> None:
    source, target = msmt17(tmp_path / "MSMT17", folders), tmp_path / "new" / "market"
    assert convert_msmt17(source, target) == ConvertResult(target, 5, 2, 3, identities=3, test_identities=3)
    expected = {}
    for name, (part, entries) in LISTS.items():
        folder = {"query": "query", "gallery": "bounding_box_test"}.get(name, "bounding_box_train")
        for label, track, camera in entries:
            own = f"{label:04d}_{track:03d}_{camera:02d}_0303morning_0008_{track}.jpg"
            identity = label + 1 + (3 if part == "test" else 0)
            expected[f"{folder}/{identity:05d}_c{camera:02d}_{own}"] = f"{part} {label:04d}/{own}".encode()
    assert contents(target) == expected
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_read_back(tmp_path: Path) -> None:
    target = tmp_path / "market"
    convert_msmt17(msmt17(tmp_path / "MSMT17"), target)
    found = {
        folder: [(record.identity, record.camera) for record in read_image_folder(target / folder, strict=True).records]
        for folder in ("bounding_box_train", "query", "bounding_box_test")
    }
    assert found == {
        "bounding_box_train": [(1, 1), (1, 15), (2, 2), (2, 4), (3, 3)],
        "query": [(4, 7), (5, 8)],
        "bounding_box_test": [(4, 7), (4, 9), (7, 11)],
    }


def test_images_are_links_and_copies_where_links_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = msmt17(tmp_path / "MSMT17")
    image = source / "test/0000/0000_000_07_0303morning_0008_0.jpg"
    image.rename(source / "elsewhere.jpg")
    image.symlink_to("../../elsewhere.jpg")
    convert_msmt17(source, tmp_path / "linked")
    query = tmp_path / "linked/query/00004_c07_0000_000_07_0303morning_0008_0.jpg"
    assert query.samefile(source / "elsewhere.jpg") and not query.is_symlink()

    def fail(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    convert_msmt17(source, tmp_path / "copied")
    assert contents(tmp_path / "copied") == contents(tmp_path / "linked")
    assert not (tmp_path / "copied" / query.relative_to(tmp_path / "linked")).samefile(query)


@pytest.mark.parametrize(
    ("name", "number", "line", "fault"),
    [
        ("train", 2, "0000/0000_001_15_0303morning_0008_1.jpg", "not an image's path below .*train and a label"),
        ("val", 1, "0001/0001_000_04_0303morning_0008_0.jpg one", "not an image's path"),
        ("query", 2, "../secret_000_01.jpg 1", "not an image's path"),
        ("query", 1, "/etc/0000_000_01.jpg 1", "not an image's path"),
        ("gallery", 3, "0003/0003_000_16_0303morning_0008_0.jpg 3", "'0003_000_16.*third field is a camera"),
        ("gallery", 1, "0003/0003_000_c1_0303morning_0008_0.jpg 3", "third field is a camera"),
        ("gallery", 2, "0003/0003_01.jpg 3", "third field is a camera"),
        ("train", 1, "0000/0000_000_01_0303morning_0008_0.txt 0", "not the name of a .jpg"),
        ("train", 3, "0002/0002_009_03_0303morning_0008_0.jpg 2", "there is no image .*0002_009_03"),
        ("val", 1, "0000/0000_000_01_0303morning_0008_0.jpg 0", "0000_000_01.* of label 0 was listed before"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_left(tmp_path: Path, name: str, number: int, line: str, fault: str) -> None:
    source = msmt17(tmp_path / "MSMT17")
    spoil(source, name, number, line)
    with pytest.raises(InputError, match=rf"list_{name}.txt, line {number}: .*{fault}"):
        convert_msmt17(source, tmp_path / "market")
    assert [path.name for path in tmp_path.iterdir()] == ["MSMT17"]


def test_another_layout_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder .*MSMT17; an MSMT17 folder holds list_train.txt"):
        convert_msmt17(tmp_path / "MSMT17", tmp_path / "market")
    source = msmt17(tmp_path / "MSMT17")
    (source / "list_gallery.txt").write_text("\n")
    with pytest.raises(InputError, match="list_gallery.txt names no image"):
        convert_msmt17(source, tmp_path / "market")
    (source / "list_val.txt").unlink()
    with pytest.raises(InputError, match="there is no .*list_val.txt"):
        convert_msmt17(source, tmp_path / "market")
    (source / "test").rename(source / "tests")
    with pytest.raises(InputError, match="neither test/ nor mask_test_v2/"):
        convert_msmt17(source, tmp_path / "market")
    assert [path.name for path in tmp_path.iterdir()] == ["MSMT17"]


def test_a_target_with_files_is_left_as_it_was(tmp_path: Path) -> None:
    source, target = msmt17(tmp_path / "MSMT17"), tmp_path / "market"
    target.mkdir()
    assert convert_msmt17(source, target).train == 5
    before = contents(target)
    with pytest.raises(InputError, match="market is not an empty folder"):
        convert_msmt17(source, target)
    assert contents(target) == before


def test_a_fault_of_the_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = msmt17(tmp_path / "MSMT17")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InfrastructureError, match="market: No space left on device"):
        convert_msmt17(source, tmp_path / "market")
    assert [path.name for path in tmp_path.iterdir()] == ["MSMT17"]
