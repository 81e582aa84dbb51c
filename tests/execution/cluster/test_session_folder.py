"""Ray's folder of a local sweep, and folders for temporary files that Ray cannot use."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from reid_tune.errors import InfrastructureError
from reid_tune.execution.cluster import session_folder as module
from reid_tune.execution.cluster.session_folder import session_folder


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a short path, for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp") as folder:
        yield Path(folder)


def test_the_folder_is_new_and_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(root))
    with session_folder() as first, session_folder() as second:
        assert first != second and first.parent == second.parent == root and first.stat().st_mode & 0o777 == 0o700
    assert not list(root.iterdir())


@pytest.mark.parametrize(
    ("name", "free", "message"),
    [
        ("t", 31 << 20, "has 31 MB free, and Ray needs 32: free space, or name another folder in TMPDIR"),
        ("t", 0, "has 0 MB free"),
        ("t" * 90, 1 << 40, "bytes too long for Ray's sockets: name a folder with a shorter path in TMPDIR"),
        ("ü" * 50, 1 << 40, "bytes too long for Ray's sockets"),
        ("#", 1 << 40, "the path has the character '#'"),
        ("?", 1 << 40, "the path has the character '\\?'"),
    ],
)
def test_a_folder_that_ray_cannot_use_is_one_sentence(
    name: str, free: int, message: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(root / name))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(InfrastructureError, match=message), session_folder():
        pass
    assert not list((root / name).iterdir())
