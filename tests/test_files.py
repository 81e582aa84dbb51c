import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.files import (
    atomic_path,
    check_output_file,
    display_name,
    display_text,
    is_disk_error,
    link_atomic,
    make_folder,
    read_text,
    write_atomic,
)


def test_a_file_appears_whole_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_content_and_leaves_nothing(tmp_path: Path, fault: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(fault), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise fault
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with path.open() as reader:
        write_atomic(path, b"new")
        assert reader.read() == "old"
    assert path.read_bytes() == b"new"


def test_rights_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_link_keeps_the_content_when_the_first_name_is_replaced(tmp_path: Path) -> None:
    latest, kept = tmp_path / "latest", tmp_path / "deep" / "kept"
    write_atomic(latest, "first")
    link_atomic(latest, kept)
    assert latest.samefile(kept)
    write_atomic(latest, "second")
    assert kept.read_text() == "first"
    link_atomic(latest, kept)
    assert kept.read_text() == "second"


def test_a_link_becomes_a_copy_where_links_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_atomic(tmp_path / "latest", "content")
    link_atomic(tmp_path / "latest", tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "content"
    assert not (tmp_path / "latest").samefile(tmp_path / "kept")


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot make the folder .*file/deep: Not a directory"):
        write_atomic(tmp_path / "file" / "deep" / "new", "x")
    with pytest.raises(InputError, match="cannot make the folder .*file: File exists"):
        make_folder(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"
    with pytest.raises(InputError, match="cannot write .*File name too long"):
        write_atomic(tmp_path / ("n" * 250), "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_write_access_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write .*Permission denied"):
        write_atomic(tmp_path / "new", "x")


def test_a_full_disk_is_no_fault_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("old")
    with (
        pytest.raises(InfrastructureError, match="cannot write .*file.txt: No space left on device"),
        atomic_path(tmp_path / "file.txt") as temporary,
    ):
        shutil.copyfile("/dev/null", temporary)
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
    assert (tmp_path / "file.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "make the file system writable, or choose another path"),
        (errno.ESTALE, "mount the file system again and try again"),
        (errno.EIO, "check the disk and try again"),
    ],
)
def test_a_disk_that_is_read_only_or_gone_is_no_fault_of_the_user(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(InfrastructureError, match=advice), atomic_path(tmp_path / "file.txt"):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == [] and not is_disk_error(PermissionError(errno.EACCES, "no"))


def test_the_path_of_an_output_file_is_no_folder_and_has_an_allowed_suffix(tmp_path: Path) -> None:
    for path in (tmp_path / "x.PNG", tmp_path / "missing/x.svg"):
        assert check_output_file("--picture", path, (".png", ".svg")) == path
    assert check_output_file("--picture", tmp_path / "x") == tmp_path / "x"
    with pytest.raises(InputError, match=f"--picture = '{tmp_path}' is a folder"):
        check_output_file("--picture", tmp_path)
    with pytest.raises(InputError, match=r"must end in \.png, \.pdf or \.svg\."):
        check_output_file("--picture", tmp_path / "x.gif", (".png", ".pdf", ".svg"))
    with pytest.raises(InputError, match=r"must end in \.json\."):
        check_output_file("--output", tmp_path / "x", (".json",))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("0001_c1.jpg", "0001_c1.jpg"),
        ("größe 寫真 é.png", "größe 寫真 é.png"),
        ("a\nb\r\t.jpg", r"a\nb\r\t.jpg"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("gpj.\u202e1000", r"gpj.\u202e1000"),
        ("a\u2028b\u200bc", r"a\u2028b\u200bc"),
        (os.fsdecode(b"\xff\xe9.jpg"), r"\xff\xe9.jpg"),
        ("\ud800", r"\ud800"),
        ("a\0b", r"a\x00b"),
        ("a\xa0b", r"a\xa0b"),
    ],
)
def test_any_name_is_shown_in_one_line(name: str, shown: str) -> None:
    assert display_name(name) == shown == display_name(Path(name))
    assert shown.isprintable() and shown.encode()
    assert display_text(f"{name}") == "\n".join(display_name(part) for part in name.split("\n"))


def test_only_regular_files_are_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("é")
    os.mkfifo(tmp_path / "pipe")
    assert read_text(tmp_path / "text") == "é"
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="it is not a regular file"):
            read_text(path)
