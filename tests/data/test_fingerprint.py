import os
import shutil
from hashlib import blake2b
from pathlib import Path

import pytest

from reid_tune.data.fingerprint import fingerprint
from reid_tune.demo import draw_demo_data
from reid_tune.errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fingerprint") / "data"
    draw_demo_data(folder, identities=4, images=3)
    return folder


def test_a_fingerprint_is_a_hash_of_names_and_contents(data: Path) -> None:
    folder = data / "query"
    inner = blake2b(digest_size=16)
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        inner.update(path.name.encode() + b"\0" + blake2b(path.read_bytes(), digest_size=16).digest())
    assert fingerprint(folder) == blake2b(inner.digest(), digest_size=16).hexdigest()


def test_a_fingerprint_knows_bytes_names_and_roles_and_no_places(data: Path, tmp_path: Path) -> None:
    query, gallery = data / "query", data / "bounding_box_test"
    copy = shutil.copytree(query, tmp_path / "copy")
    for name in ("notes.txt", "Thumbs.db", ".DS_Store", "0001_c1.gif", "photo.jpg"):
        (copy / name).write_text("left out")
    (copy / "more").mkdir()
    shutil.copy(next(query.iterdir()), copy / "more")
    os.mkfifo(copy / "0001_c1.jpg")
    assert fingerprint(copy) == fingerprint(query)
    assert len({fingerprint(query, gallery), fingerprint(gallery, query), fingerprint(query)}) == 3
    path = next(copy.glob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"\0")
    changed = fingerprint(copy)
    assert changed != fingerprint(query)
    path.rename(path.with_name("9" + path.name))
    assert fingerprint(copy) not in (changed, fingerprint(query))


def test_an_unreadable_image_is_named(data: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(data / "query", tmp_path / "copy")
    broken = copy / "0001_c1s1_000001_00.jpg"
    broken.symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match=r"cannot read .*0001_c1s1"):
        fingerprint(copy)
