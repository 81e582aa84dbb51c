import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid_tune.data.records import ImageFolder, read_training_folders, training_records
from reid_tune.data.split_files import LISTS, read_split, write_split
from reid_tune.data.splits import Split, split_by_identity
from reid_tune.errors import InputError

Lines = dict[str, list[str]]


def touch(folder: Path, identities: Sequence[int], cameras: int = 3) -> Path:
    folder.mkdir(parents=True)
    for identity in identities:
        for camera in range(1, cameras + 1):
            (folder / f"{identity:04d}_c{camera}s1_{camera:06d}_00.jpg").touch()
    return folder


def held(*paths: Path, seed: int = 0) -> tuple[Split, tuple[ImageFolder, ...]]:
    folders = read_training_folders(paths)
    return split_by_identity(training_records(*folders), seed=seed, fraction=0.4), folders


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Lines, tuple[ImageFolder, ...], Path]:
    """The lines of a written split by file, its folders, and a folder for changed lines."""
    split, folders = held(touch(tmp_path / "data" / "train", range(10)))
    write_split(tmp_path / "split", split, folders)
    lines = {name: (tmp_path / "split" / name).read_text().splitlines() for name in LISTS}
    return lines, folders, tmp_path / "changed"


def write(folder: Path, lines: Lines) -> None:
    folder.mkdir(exist_ok=True)
    for name, own in lines.items():
        (folder / name).write_text("".join(f"{line}\n" for line in own))


def refused(lists: tuple[Lines, tuple[ImageFolder, ...], Path], **changes: list[str]) -> str:
    lines, folders, target = lists
    write(target, lines | {f"{name}.txt": own for name, own in changes.items()})
    with pytest.raises(InputError) as caught:
        read_split(target, folders)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(target))
    return str(caught.value).removeprefix(f"{target}").removeprefix("/")


def test_lists_are_read_back_as_the_split_that_was_written(tmp_path: Path) -> None:
    split, folders = held(touch(tmp_path / "data" / "train", range(-1, 30)), seed=3)
    write_split(tmp_path / "split", split, folders)
    assert read_split(tmp_path / "split", folders) == split
    assert sorted(os.listdir(tmp_path / "split")) == sorted(LISTS)
    lines = (tmp_path / "split" / "query.txt").read_text().splitlines()
    assert lines == [f"train/{record.path.name}" for record in split.query]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shuffle=st.randoms(use_true_random=False), dropped=st.integers(0, 4))
def test_neither_order_nor_images_in_no_list_matter(
    lists: tuple[Lines, tuple[ImageFolder, ...], Path], shuffle: random.Random, dropped: int
) -> None:
    lines, folders, target = lists
    kept = lines | {"gallery.txt": lines["gallery.txt"][dropped:]}
    write(target, {name: shuffle.sample(own, len(own)) for name, own in kept.items()})
    split = read_split(target, folders)
    for name, part in zip(LISTS, (split.train, split.query, split.gallery), strict=True):
        assert [f"train/{record.path.name}" for record in part] == kept[name]
    assert split.images == 27 - dropped


def test_several_folders_with_equal_names_move_to_another_place(tmp_path: Path) -> None:
    """Two folders of different people with the same file names; the split is unchanged at the new paths."""
    for site in ("a", "b"):
        touch(tmp_path / "data" / site / "train", range(1, 12))
    split, folders = held(tmp_path / "data/a/train", tmp_path / "data/b/train")
    write_split(tmp_path / "data" / "split", split, folders)
    assert {record.identity_offset for record in split.query} == {0, 11}
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    found = read_training_folders([tmp_path / "elsewhere/a/train", tmp_path / "elsewhere/b/train"])
    moved = read_split(tmp_path / "elsewhere" / "split", found)
    for part in ("train", "query", "gallery"):
        before, after = getattr(split, part), getattr(moved, part)
        assert [(r.identity, r.camera) for r in after] == [(r.identity, r.camera) for r in before]
        assert [r.path.relative_to(tmp_path / "elsewhere") for r in after] == [
            r.path.relative_to(tmp_path / "data") for r in before
        ]


def test_other_tools_take_a_list_as_it_is(tmp_path: Path) -> None:
    train = touch(tmp_path / "data" / "train", range(1, 10))
    (train / "0005_c1 with blanks, 'quotes' and é.jpg").touch()
    split, folders = held(train)
    write_split(tmp_path / "split", split, folders)
    (tmp_path / "copies").mkdir()
    for name in LISTS:
        command = ["xargs", "-d", "\\n", "-a", tmp_path / "split" / name, "cp", "-t", tmp_path / "copies"]
        subprocess.run(command, cwd=tmp_path / "data", check=True)
    assert sorted(os.listdir(tmp_path / "copies")) == sorted(os.listdir(train))


def test_what_other_tools_write_is_read(lists: tuple[Lines, tuple[ImageFolder, ...], Path]) -> None:
    lines, folders, target = lists
    root = folders[0].path.parent
    write(target, lines)
    expected = read_split(target, folders)
    write(
        target,
        {
            "train.txt": [f"{root}/{line}" for line in lines["train.txt"]],
            "query.txt": [f"./{line}\r" for line in lines["query.txt"]],
            "gallery.txt": ["", *lines["gallery.txt"], "  "],
        },
    )
    assert read_split(target, folders) == expected


def test_names_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    train = touch(tmp_path / "train", range(1, 10))
    Path(os.fsdecode(os.fsencode(train) + b"/0005_c1_\xff.jpg")).touch()
    split, folders = held(train)
    write_split(tmp_path / "split", split, folders)
    assert read_split(tmp_path / "split", folders) == split and split.images == 28


def test_a_name_with_a_line_break_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    train = touch(tmp_path / "train", range(1, 10))
    (train / "0005_c1_\n.jpg").touch()
    split, folders = held(train)
    with pytest.raises(InputError, match=r"the name of the image 'train/0005_c1_\\n.jpg' in .* contains a line break"):
        write_split(tmp_path / "split", split, folders)
    assert not (tmp_path / "split").exists() or os.listdir(tmp_path / "split") == []


def test_lists_are_replaced_whole(tmp_path: Path) -> None:
    train = touch(tmp_path / "train", range(1, 20))
    for seed in (0, 1):
        split, folders = held(train, seed=seed)
        write_split(tmp_path / "split", split, folders)
    assert read_split(tmp_path / "split", folders) == split != held(train, seed=0)[0]
    with pytest.raises(InputError, match="cannot make the folder"):
        write_split(train / "0001_c1s1_000001_00.jpg" / "split", split, folders)


def test_lines_that_name_no_training_image_are_explained(lists: tuple[Lines, tuple[ImageFolder, ...], Path]) -> None:
    root = lists[1][0].path.parent
    assert refused(lists, query=["train/0099_c1_x.jpg"]) == (
        f"query.txt line 1: there is no 'train/0099_c1_x.jpg' in the training folders; lines are paths relative to "
        f"{root}, which contains them."
    )
    assert refused(lists, query=["", "0001_c1s1_000001_00.jpg"]).startswith("query.txt line 2: there is no '0001_c1s")
    for odd in ("photo.jpg", "train/0001_c1.txt", "# a remark", "train/0001_c1s1_000001_00.jpg 0"):
        assert refused(lists, train=[odd]).startswith(
            f"train.txt line 1: {odd!r} is not an image name; a line is a path"
        )
    message = refused(lists, gallery=["train/0000_c1s1_000001_00.jpg"])
    assert "'train/0000_c1s1_000001_00.jpg' is junk or a distractor; list images of identities above 0" in message


def test_an_image_is_in_one_list_once(lists: tuple[Lines, tuple[ImageFolder, ...], Path]) -> None:
    lines, *_ = lists
    first, second = lines["query.txt"][:2]
    message = refused(lists, query=[first, second, first])
    assert message == f"query.txt line 3: {first!r} is also in query.txt line 1; list each image once."
    message = refused(lists, gallery=[*lines["gallery.txt"], second])
    assert message.endswith(f"{second!r} is also in query.txt line 2; list each image once.")


def test_an_identity_on_both_sides_is_refused(lists: tuple[Lines, tuple[ImageFolder, ...], Path]) -> None:
    lines, *_ = lists
    *rest, last = lines["train.txt"]
    for side in ("query", "gallery"):
        message = refused(lists, train=rest, **{side: [*lines[f"{side}.txt"], last]})
        assert message.startswith(f": the identity of {last.removeprefix('train/')[:4]}_c")
        assert (
            "is in train.txt and in query.txt or gallery.txt (1 in all), so the score would be meaningless" in message
        )


def test_files_that_are_not_lists_are_explained(lists: tuple[Lines, tuple[ImageFolder, ...], Path]) -> None:
    lines, folders, target = lists
    for name in LISTS:
        assert (
            refused(lists, **{name[:-4]: []}) == f"{name} is empty; a split needs images in each of {', '.join(LISTS)}."
        )
        assert refused(lists, **{name[:-4]: ["", " "]}).startswith(f"{name} is empty")
        write(target, lines)
        (target / name).write_bytes("\n".join(lines[name]).encode("utf-16"))
        with pytest.raises(InputError, match=f"/{name} is not a text file; write one image file per line"):
            read_split(target, folders)
        (target / name).unlink()
        with pytest.raises(InputError, match=f"there is no .*/{name}; a split is a folder with train.txt, query.txt"):
            read_split(target, folders)
        for make in (Path.mkdir, os.mkfifo):
            make(target / name)
            with pytest.raises(InputError, match=f"/{name} is not a file; a split is a folder with train.txt"):
                read_split(target, folders)
            (target / name).rmdir() if make is Path.mkdir else (target / name).unlink()
