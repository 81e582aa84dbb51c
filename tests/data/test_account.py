"""Files that are passed over: each is counted under one reason, and the numbers add up."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from reid_tune.data.account import (
    FileAccount,
    Role,
    account_for,
    account_for_listing,
    accounts_as_dict,
    accounts_from_dict,
    describe_accounts,
)
from reid_tune.data.listing import Reason, list_folder
from reid_tune.data.records import read_image_folder
from reid_tune.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def files(*names: str) -> Callable[[Path], object]:
    return lambda folder: touch(folder, *names)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "0002_c1.jpg")


def device(folder: Path) -> None:
    (folder / "0002_c1.jpg").symlink_to("/dev/zero")


def listening_socket(folder: Path) -> None:
    # The path of a socket has at most 107 characters.
    current = os.getcwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("0002_c1.jpg")
    finally:
        os.chdir(current)


def linked_folder(folder: Path) -> None:
    touch(folder.parent / "elsewhere", "0002_c1.jpg", "0003_c1.jpg")
    (folder / "more").symlink_to(folder.parent / "elsewhere")


def circle_below(folder: Path) -> None:
    touch(folder, "more/0002_c1.jpg")
    (folder / "more" / "again").symlink_to(folder)


# What is added to a folder with one image, the reasons, and whether `dataset.strict` accepts it.
CASES: dict[str, tuple[Callable[[Path], object], dict[Reason, int], bool]] = {
    "another ending": (files("a.txt", "0001_c1.xml"), {Reason.SUFFIX: 2}, True),
    "no ending, not an image's name": (files("labels"), {Reason.SUFFIX: 1}, True),
    "an image of another format": (files("0002_c1.gif", "a.heic"), {Reason.FORMAT: 2}, False),
    "an image without an ending": (files("0002_c1"), {Reason.FORMAT: 1}, False),
    "a name that does not parse": (files("photo.jpg", "1.png"), {Reason.NAME: 2}, False),
    "hidden files": (files(".DS_Store", "._0002_c1.jpg", "Thumbs.db"), {Reason.SYSTEM: 3}, True),
    "hidden folders": (files(".git/a.jpg", "__MACOSX/0002_c1.jpg"), {Reason.SYSTEM: 2}, True),
    "a folder for each identity": (files("0002/a.jpg", "0002/b.jpg", "0003/a.jpg"), {Reason.SUBFOLDER: 3}, False),
    "folders in folders": (files("a/b/c/0002_c1.jpg", "a/0002_c1.webp"), {Reason.SUBFOLDER: 2}, False),
    "folders without images": (files("a/notes.txt", "b/.hidden.jpg"), {}, True),
    "a folder with the name of an image": (files("0002_c1.jpg/0002_c2.jpg"), {Reason.SUBFOLDER: 1}, False),
    "a linked folder": (linked_folder, {Reason.SUBFOLDER: 1}, False),
    "a link to the root": (lambda folder: (folder / "all").symlink_to("/"), {Reason.SUBFOLDER: 1}, False),
    "a circle of links": (circle_below, {Reason.SUBFOLDER: 2}, False),
    "a named pipe": (pipe, {Reason.NOT_REGULAR: 1}, False),
    "a device": (device, {Reason.NOT_REGULAR: 1}, False),
    "a socket": (listening_socket, {Reason.NOT_REGULAR: 1}, False),
    "everything": (
        files("a.txt", "b.gif", "c.jpg", ".d", "e/f.jpg"),
        {Reason.NAME: 1, Reason.FORMAT: 1, Reason.SUBFOLDER: 1, Reason.SUFFIX: 1, Reason.SYSTEM: 1},
        False,
    ),
}


@pytest.mark.parametrize(("add", "left_out", "is_accepted"), CASES.values(), ids=CASES)
def test_every_file_has_one_reason(
    tmp_path: Path, add: Callable[[Path], object], left_out: dict[Reason, int], is_accepted: bool
) -> None:
    add(touch(tmp_path / "data", "0001_c1.jpg").resolve())
    folder = read_image_folder(tmp_path / "data")
    account = account_for([folder], "train")
    assert dict(account.left_out) == left_out
    assert (account.used, account.files) == (1, 1 + sum(left_out.values()))
    assert account.as_dict()["left_out"] == {reason.value: count for reason, count in left_out.items()}
    line = describe_accounts({"train": account})
    assert (line is None) == (not left_out)
    assert line is None or line.startswith(f"left out: {sum(left_out.values())} of {account.files} files of train (")
    if is_accepted:
        assert read_image_folder(tmp_path / "data", strict=True) == folder
    else:
        with pytest.raises(InputError, match="^dataset.strict: .*data has files that would be left out .*, or set "):
            read_image_folder(tmp_path / "data", strict=True)


@pytest.mark.parametrize(
    ("role", "left_out"),
    [
        ("train", {Reason.JUNK: 2, Reason.DISTRACTOR: 1}),
        ("query", {Reason.JUNK: 2}),
        ("gallery", {Reason.JUNK: 2}),
    ],
)
def test_junk_and_distractors_count_by_role(tmp_path: Path, role: Role, left_out: dict[Reason, int]) -> None:
    touch(tmp_path, "-1_c1_a.jpg", "-1_c1_b.jpg", "0000_c1.jpg", "0001_c1.jpg", "0002_c1.jpg")
    account = account_for([read_image_folder(tmp_path)], role)
    assert dict(account.left_out) == left_out
    assert account.files == 5 == account.used + sum(left_out.values())


def test_several_folders_and_further_reasons_are_added(tmp_path: Path) -> None:
    first = touch(tmp_path / "a", "0001_c1.jpg", "0002_c1.jpg", "x.jpg")
    second = touch(tmp_path / "b", "0001_c1.jpg", "0000_c1.jpg", "y.jpg", "z.jpg")
    account = account_for([read_image_folder(first), read_image_folder(second)], "train", {Reason.UNREADABLE: 1})
    assert (account.files, account.used) == (7, 2)
    assert dict(account.left_out) == {Reason.NAME: 3, Reason.DISTRACTOR: 1, Reason.UNREADABLE: 1}
    assert str(account) == (
        "7 files = 2 used + 3 whose names do not parse, such as 'x.jpg' + 1 of distractors (identity 0) + 1 unreadable"
    )
    (restored,) = accounts_from_dict(accounts_as_dict({"train": account})).values()
    assert restored.as_dict() == account.as_dict()


def test_a_folder_of_any_names_uses_all_images(tmp_path: Path) -> None:
    touch(tmp_path, "photo.jpg", "-1_c1.jpg", "a.txt", ".b")
    account = account_for_listing(list_folder(tmp_path))
    assert (account.files, account.used) == (4, 2) and set(account.left_out) == {Reason.SUFFIX, Reason.SYSTEM}


def test_only_parts_and_reasons_with_a_number_are_described() -> None:
    accounts = {
        "train": FileAccount(12, 10, {Reason.NAME: 1, Reason.JUNK: 1}, {Reason.NAME: "a\nb.jpg"}),
        "query": FileAccount(5, 5),
        "gallery": FileAccount(1_234, 34, {Reason.SUBFOLDER: 1_200}, {Reason.SUBFOLDER: "0001"}),
    }
    assert describe_accounts(accounts) == (
        "left out: 2 of 12 files of train (1 whose name does not parse, 'a\\nb.jpg'; 1 of junk (identity -1)); "
        "1,200 of 1,234 files of gallery (1,200 in sub-folders, such as '0001/')"
    )
    assert describe_accounts(accounts, (Reason.JUNK,)) == "left out: 1 of 12 files of train (1 of junk (identity -1))"
    assert describe_accounts(accounts, (Reason.SYSTEM,)) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Market/bounding_box_train/0001_c1.jpg"], "name the folder .*/data/Market/bounding_box_train"),
        (["bounding_box_train/0001_c1.jpg", "query/0001_c1.jpg"], "such as .*/data/bounding_box_train"),
        (["people/0001_c1.jpg"], "such as .*/data/people, or move them up"),
        (["0001/a.jpg", "0002/b.jpg"], "move the images up, .*such as 0001_c1_a.jpg for 0001/a.jpg"),
        (["cam1/0001/a.jpg"], "move the images up, with names IDENTITY_cCAMERA"),
        (["0065C1T0002F016.jpg"], "rename them to IDENTITY_cCAMERA.*looks like a name of MARS"),
        (["0000_000_01_0303morning_0008_0.jpg"], "reid-tune convert msmt17"),
        (["0001_c1.gif", "0002_c1.gif"], "save them as PNG or JPEG"),
        (["0001_c1", "0002_c1"], "2 of another image format, such as '0001_c1'.*save them"),
        (["readme.txt", ".DS_Store"], "1 not an image, 'readme.txt', 1 hidden or system file.*IDENTITY_cCAMERA"),
        (["empty/notes.txt"], "it has sub-folders without images"),
        (["bad\nname\x1b[31m.jpg"], r"'bad\\nname\\x1b\[31m.jpg'"),
    ],
)
def test_a_folder_without_usable_images_names_the_next_step(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_image_folder(touch(tmp_path / "data", *names))
    assert str(caught.value).isprintable() and str(caught.value).startswith("no usable image in ")


def test_a_broken_link_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    """It may be a disk that is not mounted: it must not vanish among the files left out."""
    touch(tmp_path, "0001_c1.jpg")
    (tmp_path / "0002_c1.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "0003_c1.jpg").symlink_to("0003_c1.jpg")
    folder = read_image_folder(tmp_path, strict=True)
    assert [record.identity for record in folder.records] == [1, 2, 3] and folder.left_out == {}


def test_a_sub_folder_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "0001_c1.jpg", "locked/0002_c1.jpg", "open/0003_c1.jpg", "open/locked/0004_c1.jpg")
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:  # pytest itself removes the folder afterwards
        patch.setattr(os, "scandir", refuse)
        account = account_for([read_image_folder(tmp_path)], "gallery")
        assert (account.files, account.left_out) == (4, {Reason.SUBFOLDER: 3})
        with pytest.raises(InputError, match=r"dataset\.strict: .*3 in sub-folders"):
            read_image_folder(tmp_path, strict=True)
