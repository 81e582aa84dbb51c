"""File names that nobody would give: data sets, lists of splits and files of thresholds are read or refused."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_tune.data.file_names import explain_name, has_image_suffix, is_other_image, is_system_name, parse_name
from reid_tune.data.left_out import describe_left_out
from reid_tune.data.records import read_image_folder, read_training_folders, training_records
from reid_tune.data.split_files import LISTS, read_split, write_split
from reid_tune.data.splits import Split
from reid_tune.files import display_name
from reid_tune.tasks.common.calibration import read_threshold

from .mutations import changed_json, deep_json, fuzz, json_values, mutate, one_input, seeds

PARTS = st.one_of(
    st.sampled_from(
        ["0002", "-1", "0", "1" * 13, "９", "_c1", "_c0", "C3", "_C2", "c" + "9" * 20, "s1", "_000451", "_"]
    ),
    st.sampled_from([".jpg", ".JPEG", ".png", ".tif", ".gif", ".txt", ".npy", ".", "..", " ", "-", "~", "Thumbs.db"]),
    st.sampled_from(
        ["\n", "\r", "\t", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\udcff", "é", "\u0301", "{}", "%s"]
    ),
    st.text(max_size=3),
)
NAMES = st.lists(PARTS, min_size=1, max_size=7).map("".join)
FILE_NAMES = NAMES.map(lambda name: name.replace("/", "_").replace("\0", "_")[:60]).filter(
    lambda name: name not in ("", ".", "..") and can_be_written(name)
)


def can_be_written(name: str) -> bool:
    try:
        return len(os.fsencode(name)) < 200
    except UnicodeEncodeError:
        return False


@fuzz(200)
@given(name=NAMES)
def test_any_name(name: str) -> None:
    with one_input():
        numbers = parse_name(name)
        assert numbers is None or max(map(abs, numbers)) < 10**12
        has_image_suffix(name), is_other_image(name), is_system_name(name)
        assert explain_name(name).isprintable() and display_name(name).isprintable()


@fuzz(30)
@given(names=st.sets(FILE_NAMES, max_size=5), folders=st.sets(FILE_NAMES, max_size=2))
def test_folders_of_any_names(names: set[str], folders: set[str]) -> None:
    with TemporaryDirectory() as parent:
        root = Path(parent, "train")
        root.mkdir()
        for name in folders:
            (root / name).mkdir()
        for name in {"0002_c1.jpg", "0002_c2.jpg", "0003_c1.jpg", "0003_c2.jpg", *names} - folders:
            (root / name).touch()
        with one_input():
            (folder,) = read_training_folders([root])
            assert all(line.isprintable() for line in describe_left_out(root, folder.left_out))
            records = training_records(folder)
            write_split(root.parent, Split(tuple(records[:2]), tuple(records[2:3]), tuple(records[3:4])), [folder])
            read_split(root.parent, [folder])
        with one_input():
            read_image_folder(root, strict=True)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("data") / "train"
    root.mkdir()
    for identity in range(1, 5):
        for camera in range(1, 4):
            (root / f"{identity:04d}_c{camera}.jpg").write_bytes(b"")
    return root.parent, read_training_folders([root])


@fuzz(100)
@given(seed=seeds, name=st.sampled_from(LISTS))
def test_damaged_lists_of_a_split(split: tuple[Path, Any], seed: int, name: str) -> None:
    root, folders = split
    rows = {"train.txt": [1, 2], "query.txt": [3], "gallery.txt": [4]}
    for file, identities in rows.items():
        text = "".join(f"train/{identity:04d}_c{camera}.jpg\n" for identity in identities for camera in (1, 2, 3))
        content = text.encode()
        (root / file).write_bytes(mutate(content, seed) if file == name else content)
    with one_input(root):
        read_split(root, folders)


THRESHOLD = {
    "squared_distance": 0.5,
    "cosine": 0.75,
    "fnmr": 0.1,
    "fmr": {"reached": 0.001},
    "dimension": 4,
    "data": {"queries": 3},
}


@fuzz(80)
@given(text=deep_json | json_values.map(json.dumps) | changed_json(THRESHOLD).map(json.dumps))
def test_files_of_a_threshold(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with one_input(tmp_path):
        read_threshold(tmp_path / "t.json", 4)
