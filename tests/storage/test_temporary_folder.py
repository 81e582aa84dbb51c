"""Temporary folders, with processes that were killed simulated by locks that nobody holds."""

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.storage import temporary_folder as module
from reid_tune.storage.temporary_folder import remove_folder, remove_leftovers, temporary_folder

KILLED = """
import os, signal, sys
from reid_tune.storage.temporary_folder import temporary_folder
with temporary_folder(sys.argv[1]) as folder:
    print(folder, flush=True)
    (folder / "content").write_text("of Ray")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def leftover(root: Path, name: str = "reid-tune.abcdefgh") -> Path:
    folder = root / name
    (folder / "r" / "session").mkdir(parents=True)
    (folder / "r" / "log").write_text("secret")
    (folder / module._HOST).write_bytes(module._host())
    return folder


def test_a_folder_that_was_in_use_at_the_start_is_removed_at_the_end(root: Path) -> None:
    folder = leftover(root)
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with temporary_folder():
        assert folder.exists()
        os.close(lock)
    assert not list(root.iterdir())


def test_only_the_owner_can_enter_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        with temporary_folder("reid-tune.") as folder:
            (folder / "r").mkdir(mode=0o777)
            assert folder.parent == root and folder.name.startswith("reid-tune.")
            assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    assert not list(root.iterdir())


@pytest.mark.parametrize("prefix", ["reid-tune.", "reid-tune-run-", "reid-tune-smoke-", "reid-tune-"])
def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(prefix: str, root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, prefix], capture_output=True, text=True)
    killed = Path(done.stdout.strip())
    assert done.returncode == -9 and (killed / "content").is_file()
    with temporary_folder() as folder:
        assert not killed.exists() and folder.is_dir()


def test_a_folder_is_removed_also_if_the_block_raises(root: Path) -> None:
    with pytest.raises(KeyError), temporary_folder() as folder:
        (folder / "file").touch()
        raise KeyError
    assert not folder.exists()


def test_what_others_write_during_the_removal_is_removed_by_the_next_process(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As processes of Ray that outlive their driver for a moment."""
    folder = leftover(root)
    with monkeypatch.context() as context:
        context.setattr(module.shutil, "rmtree", lambda *_, **__: None)
        remove_folder(folder)
    assert sorted(path.name for path in folder.iterdir()) == [module._HOST, "r"]
    assert remove_leftovers(root) == [folder] and not list(root.iterdir())


def keep(folder: Path) -> None:
    pass


def empty(folder: Path) -> None:
    """As systemd-tmpfiles, which deletes files that have not been read for ten days."""
    for path in folder.iterdir():
        path.unlink()


def remove_host(folder: Path) -> None:
    (folder / module._HOST).unlink()


@pytest.mark.parametrize("change", [keep, empty, remove_host])
def test_folders_of_living_processes_stay(change: Callable[[Path], None], root: Path) -> None:
    with temporary_folder() as first, temporary_folder("reid-tune.") as second:
        for folder in (first, second):
            change(folder)
        assert first != second and remove_leftovers(root) == [] and first.is_dir() and second.is_dir()


def file(root: Path) -> Path:
    path = root / "reid-tune.abcdefgh"
    path.write_text("a file")
    return path


def link(root: Path) -> Path:
    target = leftover(root, "target")
    (root / "reid-tune.abcdefgh").symlink_to(target)
    return target / "r" / "log"


def linked_content(root: Path) -> Path:
    """A leftover is removed, but not what a link in it names."""
    target, folder = root / "target", leftover(root)
    target.mkdir()
    (target / "image.jpg").touch()
    (folder / "train").symlink_to(target)
    return target / "image.jpg"


def pipe(root: Path) -> Path:
    os.mkfifo(path := root / "reid-tune.abcdefgh")
    return path


def unfinished(root: Path) -> Path:
    """A folder that a living process has just made, and has not locked yet."""
    (path := root / "reid-tune.abcdefgh").mkdir()
    return path


def unmarked(root: Path) -> Path:
    """An old folder with content that no process of this version has written."""
    (path := root / "reid-tune.abcdefgh").mkdir()
    (path / "content").touch()
    return make_old(path) / "content"


def make_old(folder: Path) -> Path:
    os.utime(folder, (0, 0))
    return folder


def of_another_host(root: Path) -> Path:
    (leftover(root) / module._HOST).write_text("another boot id\n")
    return root / "reid-tune.abcdefgh" / "r" / "log"


def of_another_program(root: Path) -> Path:
    return leftover(root, "other.reid-tune.abcdefgh")


@pytest.mark.parametrize(
    "make", [file, link, linked_content, pipe, unfinished, unmarked, of_another_host, of_another_program]
)
def test_what_is_not_a_leftover_stays(make: Callable[[Path], Path], root: Path) -> None:
    path = make(root)
    before = path.stat().st_mtime_ns
    remove_leftovers(root)
    assert path.exists() and path.stat().st_mtime_ns == before, "nothing is created either"


def test_the_empty_folder_of_a_process_killed_before_it_locked_it_is_removed_later(root: Path) -> None:
    folder = unfinished(root)
    assert remove_leftovers(root) == []
    make_old(folder)
    assert remove_leftovers(root) == [folder] and not list(root.iterdir())


def test_a_folder_that_processes_of_ray_have_made_again_is_removed(root: Path) -> None:
    (root / "reid-tune.abcdefgh" / "r" / "session_1" / "logs").mkdir(parents=True)
    (root / "reid-tune-mine" / "r" / "notes").mkdir(parents=True)
    assert [folder.name for folder in remove_leftovers(root)] == ["reid-tune.abcdefgh"]
    assert [folder.name for folder in root.iterdir()] == ["reid-tune-mine"]


def test_an_old_empty_folder_that_is_locked_stays(root: Path) -> None:
    with temporary_folder() as folder:
        remove_host(folder)
        assert remove_leftovers(make_old(folder).parent) == [] and folder.is_dir()


def test_a_folder_from_before_a_restart_of_this_machine_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = root / "boot"
    boot.write_text("the boot before\n")
    monkeypatch.setattr(module, "_BOOT_ID", boot)
    folder = leftover(root)
    boot.write_text("this boot\n")
    monkeypatch.setattr(module.socket, "gethostname", lambda: "another-host")
    assert remove_leftovers(root) == []
    monkeypatch.undo()
    monkeypatch.setattr(module, "_BOOT_ID", boot)
    assert remove_leftovers(root) == [folder]


def test_containers_of_one_kernel_remove_leftovers_of_each_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leftover(root)
    monkeypatch.setattr(module.socket, "gethostname", lambda: "another-container")
    monkeypatch.setattr(module, "_MACHINE_ID", root / "missing")
    assert remove_leftovers(root) == [folder]


def test_folders_of_other_users_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leftover(root)
    user = os.geteuid()
    monkeypatch.setattr(module.os, "geteuid", lambda: user + 1)
    assert remove_leftovers(root) == [] and (folder / "r" / "log").is_file()


def test_a_folder_that_replaces_a_leftover_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, another process removes the leftover, and a third one makes a folder of its name."""
    lock, folder = fcntl.flock, leftover(root)

    def replace_and_lock(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(module.fcntl, "flock", lock)
        folder.rename(root / "removed")
        leftover(root)
        lock(descriptor, operation)

    monkeypatch.setattr(module.fcntl, "flock", replace_and_lock)
    assert remove_leftovers(root) == [] and folder.is_dir()
    assert remove_leftovers(root) == [folder]


def test_a_new_folder_waits_for_a_process_that_examines_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.mkdtemp
    descriptors: list[int] = []

    def make_and_examine(**arguments: str) -> str:
        folder = make(**arguments)
        descriptors.append(module._open(Path(folder)))
        fcntl.flock(descriptors[0], fcntl.LOCK_EX)
        threading.Timer(0.1, os.close, descriptors).start()
        return folder

    monkeypatch.setattr(module.tempfile, "mkdtemp", make_and_examine)
    with temporary_folder() as folder:
        assert (folder / module._HOST).read_bytes() == module._host() and remove_leftovers(root) == []


def test_without_locks_nothing_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    folder, lock = leftover(root), fcntl.flock
    monkeypatch.setattr(module.fcntl, "flock", refuse)
    with temporary_folder() as new:
        assert folder.is_dir() and new.is_dir()
        monkeypatch.setattr(module.fcntl, "flock", lock)
        assert remove_leftovers(root) == [folder] and new.is_dir(), "a process that has locks does not see this one's"


def test_a_host_without_a_boot_id_has_a_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BOOT_ID", root / "missing")
    folder = leftover(root)
    assert remove_leftovers(root) == [folder]


@pytest.mark.parametrize("name", ["run#7", "what?", "#", "a?b=c#d", "two\nlines", "a\ttab"])
def test_a_path_with_a_meaning_in_addresses_is_refused(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(root / name))
    with (
        pytest.raises(InfrastructureError, match=r"^TMPDIR = .*the path has the character .*name another") as caught,
        temporary_folder(),
    ):
        pass
    assert str(caught.value).isprintable() and not list((root / name).iterdir())


@pytest.mark.parametrize("name", ["with space", "ü", "100%", "a%23b", "a&b=c", "a;b", "[x]", "+"])
def test_other_paths_can_be_used(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(root / name))
    with temporary_folder() as folder:
        assert folder.parent == root / name


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TMPDIR", "/no/such/folder")
    return r"used in /no/such/folder \(No such file or directory\)"


@pytest.fixture
def unusable(monkeypatch: pytest.MonkeyPatch) -> str:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(module.tempfile, "gettempdir", fail)
    return r"used \(No usable temporary directory found\)"


@pytest.mark.parametrize("problem", ["missing", "unusable"])
def test_no_folder_for_temporary_files_is_one_sentence(problem: str, request: pytest.FixtureRequest) -> None:
    reason = request.getfixturevalue(problem)
    with pytest.raises(InfrastructureError, match=rf"{reason}: free space, .*TMPDIR\.$"), temporary_folder():
        pass
