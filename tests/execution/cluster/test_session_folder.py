"""Ray's folder of a local sweep, with processes that were killed simulated by locks that nobody holds."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.execution.cluster import session_folder as module
from reid_tune.execution.cluster.session_folder import remove_leftovers, session_folder

KILLED = """
import os, signal, sys, tempfile
from reid_tune.execution.cluster.session_folder import session_folder
tempfile.tempdir = sys.argv[1]
with session_folder() as folder:
    print(folder, flush=True)
    (folder / "content").write_text("of Ray")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rt", dir="/tmp"))
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr(module, "_require_room", lambda root: None)
        yield Path(folder)


def leftover(root: Path, name: str = "reid-tune.abcdefgh") -> Path:
    folder = root / name
    (folder / "r" / "session").mkdir(parents=True)
    (folder / "r" / "log").write_text("secret")
    (folder / "lock").touch()
    return folder


def test_only_the_owner_can_enter_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        with session_folder() as folder:
            (folder / "r").mkdir(mode=0o777)
            assert folder.parent == root and folder.stat().st_mode & 0o777 == 0o700
            assert (folder / "lock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert not list(root.iterdir())


def test_the_folder_of_a_killed_driver_is_removed_by_the_next_one(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(root)], capture_output=True, text=True)
    killed = Path(done.stdout.strip())
    assert done.returncode == -9 and (killed / "content").is_file()
    with session_folder() as folder:
        assert not killed.exists() and folder.is_dir()


def test_folders_of_living_drivers_stay(root: Path) -> None:
    with session_folder() as first, session_folder() as second:
        assert first != second and remove_leftovers(root) == [] and first.is_dir() and second.is_dir()


@pytest.mark.parametrize(
    "name", ["reid-tune-abcdefgh", "reid-tune-run-7-abc", "ray", "reid-tune", "other.reid-tune.abcdefgh"]
)
def test_folders_of_other_names_stay(name: str, root: Path) -> None:
    folder = leftover(root, name)
    assert remove_leftovers(root) == [] and folder.is_dir()


def link(root: Path) -> Path:
    target = leftover(root, "target")
    (root / "reid-tune.abcdefgh").symlink_to(target)
    return target


def file(root: Path) -> Path:
    path = root / "reid-tune.abcdefgh"
    path.write_text("a file")
    return path


def linked_lock(root: Path) -> Path:
    folder, target = leftover(root), root / "target"
    target.write_text("of somebody else")
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(target)
    return target


@pytest.mark.parametrize("make", [link, file, linked_lock])
def test_links_and_files_are_not_followed(make: Callable[[Path], Path], root: Path) -> None:
    path = make(root)
    assert remove_leftovers(root) == [] and path.exists()


def test_folders_of_other_users_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leftover(root)
    user = os.geteuid()
    monkeypatch.setattr(module.os, "geteuid", lambda: user + 1)
    assert remove_leftovers(root) == [] and (folder / "r" / "log").is_file()


def test_a_folder_that_is_removed_while_it_is_created_is_replaced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another driver takes a new folder for a leftover, before or after this one has opened the lock."""
    make, lock, created = tempfile.mkdtemp, fcntl.flock, []

    def make_and_lose(**arguments: str) -> str:
        created.append(make(**arguments))
        if len(created) == 1:
            shutil.rmtree(created[0])
        return created[-1]

    def lose_and_lock(file: int, operation: int) -> None:
        if len(created) == 2:
            shutil.rmtree(created[1])
        lock(file, operation)

    monkeypatch.setattr(module.tempfile, "mkdtemp", make_and_lose)
    monkeypatch.setattr(module.fcntl, "flock", lose_and_lock)
    with session_folder() as folder:
        assert len(created) == 3 and folder == Path(created[2])


def test_without_locks_nothing_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    folder = leftover(root)
    monkeypatch.setattr(module.fcntl, "flock", refuse)
    with session_folder() as new:
        assert folder.is_dir() and new.is_dir()


@pytest.mark.parametrize(
    ("name", "free", "message"),
    [
        ("t", 31 << 20, "has 31 MB free, and Ray needs 32: free space, or name another folder in TMPDIR"),
        ("t", 0, "has 0 MB free"),
        ("t" * 90, 1 << 40, "bytes too long for Ray's sockets: name a folder with a shorter path in TMPDIR"),
        ("ü" * 50, 1 << 40, "bytes too long for Ray's sockets"),
    ],
)
def test_a_folder_that_ray_cannot_use_is_one_sentence(
    name: str, free: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path("/tmp", name)
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    monkeypatch.setattr(module, "remove_leftovers", lambda root: [])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(InfrastructureError, match=message), session_folder():
        pass


def test_no_folder_for_temporary_files_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(module.tempfile, "gettempdir", fail)
    with pytest.raises(InfrastructureError, match="No usable temporary directory found.*TMPDIR"), session_folder():
        pass
