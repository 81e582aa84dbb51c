"""Copies of data at s3:// over HTTP, on each of the servers that speak S3."""

import subprocess
import sys
from pathlib import Path

import pytest

from reid_tune.config.load import build_experiment
from reid_tune.data.fingerprint import fingerprint
from reid_tune.data.records import read_image_folder
from reid_tune.errors import InputError
from reid_tune.storage import download_cache as copies
from reid_tune.storage import s3 as objects
from reid_tune.storage.download_cache import ensure_local_file, ensure_local_folder
from reid_tune.storage.s3 import S3Store
from reid_tune.tasks.inference import _list_images
from reid_tune.training.data_split import validation_folders


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REID_TUNE_CACHE_DIR", str(tmp_path / "cache"))
    new_process()


def new_process() -> None:
    copies._download_folder.cache_clear()
    copies._download_file.cache_clear()


def test_a_folder_is_copied_once_and_then_what_has_changed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_RECENT_NANOSECONDS", 0)  # Every version has another size.
    bucket = S3Store(url)
    for name in ("0001_c1_a.jpg", "0001_c2_b.jpg", "0002_c1_c.jpg", "sub/0003_c1_d.jpg"):
        bucket.write(name, name.encode())
    folder = ensure_local_folder(url)
    assert sorted(path.name for path in folder.iterdir()) == ["0001_c1_a.jpg", "0001_c2_b.jpg", "0002_c1_c.jpg"]
    assert all(path.read_bytes() == path.name.encode() for path in folder.iterdir())

    copied: list[str] = []
    download = S3Store.download
    monkeypatch.setattr(S3Store, "download", lambda *all: copied.append(all[1]) or download(*all))
    bucket.write("0001_c1_a.jpg", b"another")
    bucket.write("0004_c1_e.jpg", b"new")
    bucket.remove("0002_c1_c.jpg")
    assert ensure_local_folder(url) == folder and not copied, "a process sees one state"
    new_process()
    assert [record.path.read_bytes() for record in read_image_folder(url).records] == [
        b"another",
        b"0001_c2_b.jpg",
        b"new",
    ]
    assert sorted(copied) == ["0001_c1_a.jpg", "0004_c1_e.jpg"]


def test_processes_copy_a_folder_one_after_the_other(url: str, tmp_path: Path) -> None:
    for number in range(50):
        S3Store(url).write(f"0001_c1_{number}.jpg", b"x" * number)
    code = f"from reid_tune.data.records import read_image_folder; print(len(read_image_folder('{url}').records))"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in started] == ["50\n"] * 3
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_file_is_copied_and_copied_again_when_it_has_changed(url: str) -> None:
    S3Store(url).write("weights.pth", b"1")
    assert ensure_local_file(f"{url}/weights.pth").read_bytes() == b"1"
    S3Store(url).write("weights.pth", b"2")
    new_process()
    assert ensure_local_file(f"{url}/weights.pth").read_bytes() == b"2"


def test_paths_of_this_machine_stay_what_they_are() -> None:
    assert ensure_local_folder("data/x") == Path("data/x") and ensure_local_file("w.pth") == Path("w.pth")


def test_an_empty_prefix_is_said(url: str) -> None:
    with pytest.raises(InputError, match=f"there are no files at {url}/none; check the path of the data set"):
        ensure_local_folder(f"{url}/none")
    with pytest.raises(InputError, match=f"there is no file {url}/none.pth"):
        ensure_local_file(f"{url}/none.pth")


def test_tasks_read_images_at_an_address(url: str) -> None:
    for name in ("query/0001_c1_a.jpg", "gallery/0001_c2_b.jpg", "train/0002_c1_c.jpg"):
        S3Store(url).write(name, b"x")
    folders = {f"{key}_dataset_dir": f"{url}/{name}" for key, name in (("query", "query"), ("test", "gallery"))}
    experiment = build_experiment({"dataset": folders | {"train_dataset_dir": f"{url}/train"}}, {}, "spec")
    assert validation_folders(experiment) == (f"{url}/query", f"{url}/gallery"), "auto finds them"
    assert [image.subset for image in _list_images(experiment, Path("out.json"))[0]] == ["query", "gallery"]
    local = read_image_folder(f"{url}/train").path
    assert fingerprint(f"{url}/train") == fingerprint(local)
